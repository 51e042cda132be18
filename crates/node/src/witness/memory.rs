//! Decides how often the homeserver is asked for events: what was searched in vain is not searched again for a while,
//! and strangers' mail can't keep it busy. Pure: the caller passes the time.

use std::collections::HashMap;
use std::time::Duration;

use restante_federation_proto::{KeyDocument, ServerName};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::leads::Lead;

/// How long a search in vain is not repeated.
const IN_VAIN: Duration = Duration::from_secs(10 * 60);

/// Searches in vain that are remembered, about 500 bytes each. Forgetting costs questions alone.
const REMEMBERED_MAX: usize = 4096;

/// All searches. A node that lost its keys meets its correspondents again, so that many are made at once after a quiet
/// time. One takes up to 21 questions, of the 8 in a second that all parts of the node share, and mostly two.
const OVERALL: Pace = Pace { burst: 20, every: Duration::from_secs(3) };

/// Searches for the keys of one server: its mail may name some rooms in vain before one that proves them, but whoever
/// makes up mail in its name uses up no other's searches.
const OF_ONE_SERVER: Pace = Pace { burst: 3, every: Duration::from_secs(60) };

/// A server and the keys that a document says it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    server: ServerName,
    keys: [u8; 32],
}

impl Subject {
    /// What `document` says, however long it is valid.
    pub(super) fn of(document: &KeyDocument) -> Self {
        let mut keys = Sha256::new();
        for (key_id, key) in document.verify_keys() {
            keys.update(key_id.as_str());
            keys.update([0]);
            keys.update(key.as_bytes());
        }
        Self { server: document.server_name().clone(), keys: keys.finalize().into() }
    }
}

/// What was searched in vain: everywhere, or in one room.
type Place = (Subject, Option<String>);

#[derive(Debug)]
struct InVain {
    reason: String,
    until: Instant,
}

/// The searches of a node since its start.
#[derive(Debug, Default)]
pub(super) struct Memory {
    in_vain: HashMap<Place, InVain>,
    overall: Turns,
    /// Of the servers that were searched for lately. There are no more than the overall pace allows.
    of_one_server: HashMap<ServerName, Turns>,
}

/// How many turns there are: some at once after a quiet time, and one more in each period.
#[derive(Debug, Clone, Copy)]
struct Pace {
    burst: u32,
    every: Duration,
}

/// The turns that were taken.
#[derive(Debug, Clone, Copy, Default)]
struct Turns {
    /// When the next would be due if there were no burst.
    next: Option<Instant>,
}

impl Turns {
    /// These after one more, if there is one.
    fn after_one_more(self, pace: Pace, now: Instant) -> Option<Self> {
        let due = self.next.map_or(now, |next| next.max(now));
        let has_turn = due - now <= pace.every * (pace.burst - 1);
        has_turn.then(|| Self { next: Some(due + pace.every) })
    }
}

impl Memory {
    /// The leads that are to be followed now, or why none is.
    pub(super) fn begin(
        &mut self,
        subject: &Subject,
        leads: Vec<Lead>,
        now: Instant,
    ) -> Result<Vec<Lead>, String> {
        self.in_vain.retain(|_, in_vain| in_vain.until > now);
        if let Some(in_vain) = self.in_vain.get(&(subject.clone(), None)) {
            return Err(in_vain.reason.clone());
        }
        let known = |lead: &Lead| (subject.clone(), Some(lead.room_id.clone()));
        let (searched, fresh): (Vec<Lead>, Vec<Lead>) =
            leads.into_iter().partition(|lead| self.in_vain.contains_key(&known(lead)));
        if fresh.is_empty() {
            let reason = searched.first().and_then(|lead| self.in_vain.get(&known(lead)));
            return Err(reason.map(|in_vain| in_vain.reason.clone()).unwrap_or_default());
        }
        if !self.take_turn(&subject.server, now) {
            return Err("events of it are looked for later; many such searches are due".to_owned());
        }
        Ok(fresh)
    }

    /// The homeserver holds no event of the subject's server in these rooms.
    pub(super) fn silent(&mut self, subject: &Subject, leads: &[Lead], now: Instant) {
        for lead in leads {
            let reason = "the homeserver holds no event of it in the rooms of this mail";
            self.remember((subject.clone(), Some(lead.room_id.clone())), reason, now);
        }
    }

    /// An event speaks against the subject's keys.
    pub(super) fn contradicted(&mut self, subject: Subject, reason: &str, now: Instant) {
        self.remember((subject, None), reason, now);
    }

    fn remember(&mut self, place: Place, reason: &str, now: Instant) {
        if self.in_vain.len() >= REMEMBERED_MAX {
            self.in_vain.clear();
        }
        self.in_vain.insert(place, InVain { reason: reason.to_owned(), until: now + IN_VAIN });
    }

    fn take_turn(&mut self, server: &ServerName, now: Instant) -> bool {
        self.of_one_server.retain(|_, turns| turns.next.is_some_and(|next| next > now));
        let of_server = self.of_one_server.get(server).copied().unwrap_or_default();
        let Some(of_server) = of_server.after_one_more(OF_ONE_SERVER, now) else { return false };
        let Some(overall) = self.overall.after_one_more(OVERALL, now) else { return false };
        self.overall = overall;
        self.of_one_server.insert(server.clone(), of_server);
        true
    }
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::mint;

    use super::*;
    use crate::test_site::{BEGINNING, identity, name};

    fn subject(server: &str) -> Subject {
        Subject::of(&mint(&name(server), &identity(server).key, None, BEGINNING))
    }

    fn lead(room: &str) -> Lead {
        Lead { room_id: room.to_owned(), prev_events: vec![], auth_events: vec![] }
    }

    #[test]
    fn a_room_without_events_of_the_server_is_not_searched_again_for_a_while() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.silent(&subject("b.test"), &[lead("!1")], now);
        let both = || vec![lead("!1"), lead("!2")];
        assert_eq!(memory.begin(&subject("b.test"), both(), now), Ok(vec![lead("!2")]));
        let refusal = memory.begin(&subject("b.test"), vec![lead("!1")], now).unwrap_err();
        assert!(refusal.contains("no event"));
        assert_eq!(memory.begin(&subject("c.test"), both(), now), Ok(both()));
        assert_eq!(memory.begin(&subject("b.test"), both(), now + IN_VAIN), Ok(both()));
    }

    #[test]
    fn what_an_event_contradicts_is_searched_nowhere_for_a_while() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.contradicted(subject("b.test"), "another key", now);
        let refusal = memory.begin(&subject("b.test"), vec![lead("!1")], now);
        assert_eq!(refusal, Err("another key".to_owned()));
        let impostor = Subject::of(&mint(&name("b.test"), &identity("x").key, None, BEGINNING));
        assert!(memory.begin(&impostor, vec![lead("!1")], now).is_ok());
    }

    /// Searches that are begun in a minute for as many servers as are named, ten times in a second.
    fn searches(memory: &mut Memory, servers: u32) -> u32 {
        let start = Instant::now();
        let mut searches = 0;
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100) * tenth;
            let subject = subject(&format!("s{}.test", tenth % servers));
            searches += u32::from(memory.begin(&subject, vec![lead("!1")], now).is_ok());
            assert!(memory.of_one_server.len() < 100);
        }
        searches
    }

    #[test]
    fn searches_are_few_in_any_time() {
        assert_eq!(searches(&mut Memory::default(), 600), OVERALL.burst + 60 / 3 - 1);
    }

    #[test]
    fn mail_in_one_servers_name_takes_no_search_from_the_others() {
        let mut memory = Memory::default();
        assert_eq!(searches(&mut memory, 1), OF_ONE_SERVER.burst);
        assert!(memory.begin(&subject("b.test"), vec![lead("!1")], Instant::now()).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        for room in 0..2 * REMEMBERED_MAX {
            memory.silent(&subject("b.test"), &[lead(&room.to_string())], now);
        }
        assert!(memory.in_vain.len() <= REMEMBERED_MAX);
    }
}
