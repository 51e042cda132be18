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

/// Searches at once after a quiet time; a node that lost its keys meets its correspondents again.
const BURST: u32 = 10;

/// One more search in this time. One takes up to 21 questions, of the 8 in a second that all parts of the node share,
/// and mostly two.
const EVERY: Duration = Duration::from_secs(3);

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
    /// When the next search would be due if there were no burst.
    next: Option<Instant>,
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
        if !self.take_turn(now) {
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

    fn take_turn(&mut self, now: Instant) -> bool {
        let due = self.next.map_or(now, |next| next.max(now));
        let has_turn = due - now <= EVERY * (BURST - 1);
        if has_turn {
            self.next = Some(due + EVERY);
        }
        has_turn
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

    #[test]
    fn searches_are_few_in_any_time() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let mut searches = 0;
        for tenth in 0..600 {
            let now = start + Duration::from_millis(100) * tenth;
            let begun = memory.begin(&subject("b.test"), vec![lead("!1")], now);
            searches += u32::from(begun.is_ok());
        }
        assert_eq!(searches, BURST + 60 / 3 - 1);
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
