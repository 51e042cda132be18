//! A room as one server has it: a graph of events, and the order in which its user saw them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation::Identity;
use restante_federation_proto::{RoomVersion, ServerName, Timestamp};
use serde_json::{Value, json};

use crate::acl;
use crate::pdu::{Draft, Pdu, user_of};

/// Newest events that one event follows at most, as in Synapse.
const PREV_EVENTS_MAX: usize = 10;

/// A room can't be as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// Nobody is in it.
    #[error("a room needs at least one member; name the servers that are in it")]
    Empty,
    /// A server is not in it.
    #[error("{0} is not in that room; only members write")]
    NotAMember(ServerName),
    /// An event is not there.
    #[error("the event {0} is not in that room; an event follows only events that its server has")]
    UnknownEvent(String),
}

/// A room as one server has it.
#[derive(Debug, Clone)]
pub struct Room {
    id: String,
    version: RoomVersion,
    version_name: String,
    members: BTreeSet<ServerName>,
    events: BTreeMap<String, Pdu>,
    timeline: Vec<String>,
    newest: BTreeSet<String>,
}

impl Room {
    /// A room of `version` that the first of `members` made and that the others joined, a second after each other, the last one a second before `now`.
    pub fn found(
        id: &str,
        version: RoomVersion,
        members: &[Identity],
        now: Timestamp,
    ) -> Result<Self, RoomError> {
        let first = members.first().ok_or(RoomError::Empty)?;
        let mut room = Self {
            id: id.to_owned(),
            version,
            version_name: format!("{version:?}").trim_start_matches('V').to_owned(),
            members: members.iter().map(|member| member.server_name.clone()).collect(),
            events: BTreeMap::new(),
            timeline: Vec::new(),
            newest: BTreeSet::new(),
        };
        let creator = user_of(&first.server_name);
        let create = json!({ "creator": creator });
        let before = |seconds: usize| now.before(Duration::from_secs(seconds as u64));
        room.write(first, "m.room.create", Some(""), create, None, before(members.len() + 1))?;
        for (number, member) in members.iter().enumerate() {
            let user = user_of(&member.server_name);
            let join = json!({"membership": "join"});
            let at = before(members.len() - number);
            room.write(member, "m.room.member", Some(&user), join, None, at)?;
        }
        Ok(room)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Servers that are in it.
    pub fn members(&self) -> &BTreeSet<ServerName> {
        &self.members
    }

    /// The ids of its events in the order in which the local user saw them.
    pub fn timeline(&self) -> &[String] {
        &self.timeline
    }

    /// One event.
    pub fn event(&self, id: &str) -> Option<&Pdu> {
        self.events.get(id)
    }

    /// The events that nothing follows.
    pub fn newest(&self) -> &BTreeSet<String> {
        &self.newest
    }

    /// Whether the user of `server` has joined in what leads up to the event `id`, or by it.
    pub fn has_joined_by(&self, server: &ServerName, id: &str) -> bool {
        let user = user_of(server);
        let (mut due, mut met) = (vec![id], BTreeSet::new());
        while let Some(pdu) = due.pop().and_then(|id| self.event(id)) {
            if pdu.kind == "m.room.member" && pdu.state_key.as_ref() == Some(&user) {
                return true;
            }
            due.extend(pdu.prev_events.iter().map(String::as_str).filter(|id| met.insert(*id)));
        }
        false
    }

    pub(crate) fn version(&self) -> RoomVersion {
        self.version
    }

    pub(crate) fn version_name(&self) -> &str {
        &self.version_name
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.events.contains_key(id)
    }

    /// Predecessors of `pdu` that are not here.
    pub(crate) fn missing_before(&self, pdu: &Pdu) -> BTreeSet<String> {
        pdu.prev_events.iter().filter(|prev| !self.has(prev)).cloned().collect()
    }

    /// Writes an event after `follows`, or after the newest ones, and takes it in.
    pub(crate) fn write(
        &mut self,
        author: &Identity,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        follows: Option<BTreeSet<String>>,
        now: Timestamp,
    ) -> Result<Pdu, RoomError> {
        if !self.members.contains(&author.server_name) {
            return Err(RoomError::NotAMember(author.server_name.clone()));
        }
        let newest = || self.newest.iter().take(PREV_EVENTS_MAX).cloned().collect();
        let prev_events: BTreeSet<String> = follows.unwrap_or_else(newest);
        if let Some(unknown) = prev_events.iter().find(|prev| !self.has(prev)) {
            return Err(RoomError::UnknownEvent(unknown.clone()));
        }
        let depths = prev_events.iter().filter_map(|prev| self.event(prev)).map(|prev| prev.depth);
        let draft = Draft {
            room_id: &self.id,
            version: self.version,
            kind,
            state_key,
            content,
            depth: depths.max().unwrap_or(0) + 1,
            prev_events,
            auth_events: self.authorizing(&author.server_name),
            sent_at: now,
        };
        let pdu = Pdu::write(draft, author);
        self.insert(pdu.clone());
        Ok(pdu)
    }

    /// The creation and the sender's join.
    fn authorizing(&self, server: &ServerName) -> Vec<String> {
        let user = user_of(server);
        let authorizes = |pdu: &&Pdu| {
            pdu.kind == "m.room.create"
                || (pdu.kind == "m.room.member" && pdu.state_key.as_ref() == Some(&user))
        };
        let state = self.timeline.iter().filter_map(|id| self.event(id));
        state.filter(authorizes).map(|pdu| pdu.id.clone()).collect()
    }

    /// Takes an event in; the local user sees it.
    pub(crate) fn insert(&mut self, pdu: Pdu) {
        if self.has(&pdu.id) {
            return;
        }
        let followed = self.events.values().any(|other| other.prev_events.contains(&pdu.id));
        for prev in &pdu.prev_events {
            self.newest.remove(prev);
        }
        if !followed {
            self.newest.insert(pdu.id.clone());
        }
        self.timeline.push(pdu.id.clone());
        self.events.insert(pdu.id.clone(), pdu);
    }

    /// The state before `id`: of each kind and key the event with the largest depth. Rooms here never fork over state.
    pub(crate) fn state_before(&self, id: &str) -> Vec<&Pdu> {
        let Some(at) = self.event(id) else { return Vec::new() };
        let mut state: BTreeMap<(&str, &str), &Pdu> = BTreeMap::new();
        for pdu in self.events.values().filter(|pdu| pdu.depth < at.depth) {
            let Some(state_key) = &pdu.state_key else { continue };
            let place = state.entry((&pdu.kind, state_key)).or_insert(pdu);
            if (place.depth, &place.id) < (pdu.depth, &pdu.id) {
                *place = pdu;
            }
        }
        state.into_values().collect()
    }

    /// Whether the room's newest ACL lets `server` take part.
    pub(crate) fn permits(&self, server: &ServerName) -> bool {
        let acls = self.events.values().filter(|pdu| pdu.kind == "m.room.server_acl");
        let newest = acls.max_by_key(|pdu| (pdu.depth, pdu.id.clone()));
        newest.is_none_or(|acl| acl::permits(&acl.json["content"], server.as_str()))
    }

    /// What lies before `latest` and not in `earliest`, as Synapse looks for it: layer by layer, so that what an event
    /// follows comes before all that lies further back, however old it is.
    pub(crate) fn layers_before(
        &self,
        latest: &BTreeSet<String>,
        earliest: &BTreeSet<String>,
        limit: usize,
    ) -> Vec<&Pdu> {
        let mut met: BTreeSet<&str> = earliest.iter().map(String::as_str).collect();
        let mut layer: Vec<&Pdu> =
            latest.difference(earliest).filter_map(|id| self.event(id)).collect();
        let mut found: Vec<&Pdu> = Vec::new();
        while !layer.is_empty() && found.len() < limit {
            let mut next = Vec::new();
            for pdu in layer {
                // Those that were met count as well, as the LIMIT of Synapse's query counts them.
                let before = pdu.prev_events.iter().take(limit - found.len());
                let before: Vec<&Pdu> = before
                    .filter_map(|id| self.event(id))
                    .filter(|pdu| met.insert(&pdu.id))
                    .collect();
                found.extend(&before);
                next.extend(before);
            }
            layer = next;
        }
        found
    }

    /// Events back from `from`, deepest first: those of `from` themselves, and what lies before them.
    pub(crate) fn back_from(&self, from: &BTreeSet<String>, limit: usize) -> Vec<&Pdu> {
        let mut met: BTreeSet<&str> = BTreeSet::new();
        let known = |id: &String| self.event(id);
        let mut due: BTreeMap<(u64, &str), &Pdu> =
            from.iter().filter_map(known).map(|pdu| ((pdu.depth, pdu.id.as_str()), pdu)).collect();
        let mut found = Vec::new();
        while let Some((_, pdu)) = due.pop_last() {
            if found.len() == limit {
                break;
            }
            if met.insert(&pdu.id) {
                found.push(pdu);
                let before = pdu.prev_events.iter().filter_map(known);
                due.extend(before.map(|pdu| ((pdu.depth, pdu.id.as_str()), pdu)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use restante_federation_proto::SigningKey;

    use super::*;

    fn identity(name: &str) -> Identity {
        let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[name.as_bytes()[0]; 32]);
        Identity { server_name: name.parse().unwrap(), key: Arc::new(key) }
    }

    fn room() -> Room {
        let members = [identity("a.test"), identity("b.test")];
        Room::found("!r:a.test", RoomVersion::V11, &members, Timestamp::from_millis(1)).unwrap()
    }

    fn say(room: &mut Room, follows: Option<BTreeSet<String>>) -> Pdu {
        // What is the same would be one event.
        let content = json!({"body": room.events.len()});
        room.write(&identity("a.test"), "m.room.message", None, content, follows, Timestamp::EPOCH)
            .unwrap()
    }

    #[test]
    fn events_of_every_kind_are_signed_so_that_they_verify() {
        for version in [RoomVersion::V4, RoomVersion::V10, RoomVersion::V11] {
            let members = [identity("a.test"), identity("b.test")];
            let mut room = Room::found("!r:a.test", version, &members, Timestamp::EPOCH).unwrap();
            say(&mut room, None);
            assert_eq!(room.timeline().len(), 4);
            for pdu in room.events.values() {
                let key = identity(pdu.server.as_str()).key.public_key();
                assert!(pdu.is_genuine(version, &pdu.key_id().unwrap(), &key));
                let mut altered = pdu.clone();
                altered.json["content"]["body"] = "else".into();
                assert!(!altered.is_genuine(version, &pdu.key_id().unwrap(), &key));
            }
        }
    }

    #[test]
    fn who_joined_on_another_branch_has_not_joined_before_an_event() {
        let mut room = room();
        let join_of_a = BTreeSet::from([room.timeline()[1].clone()]);
        let forked = say(&mut room, Some(join_of_a));
        let (a, b) = (identity("a.test").server_name, identity("b.test").server_name);
        assert!(room.has_joined_by(&a, &forked.id) && !room.has_joined_by(&b, &forked.id));
        let newest = room.timeline()[2].clone();
        assert!(room.has_joined_by(&b, &newest));
    }

    #[test]
    fn a_fork_has_two_newest_events_until_one_follows_both() {
        let mut room = room();
        let start = room.newest().clone();
        let (one, other) = (say(&mut room, None), say(&mut room, Some(start)));
        assert_eq!(*room.newest(), BTreeSet::from([one.id.clone(), other.id.clone()]));
        let joining = say(&mut room, None);
        assert_eq!(joining.prev_events, BTreeSet::from([one.id, other.id]));
        assert_eq!(*room.newest(), BTreeSet::from([joining.id]));
    }

    #[test]
    fn a_gap_is_answered_back_to_what_the_other_side_has() {
        let mut room = room();
        let known = say(&mut room, None);
        let gap: Vec<Pdu> = (0..5).map(|_| say(&mut room, None)).collect();
        let found = room.layers_before(&[gap[4].id.clone()].into(), &[known.id].into(), 100);
        let mut ids: Vec<&str> = found.iter().map(|pdu| pdu.id.as_str()).collect();
        ids.reverse();
        assert_eq!(ids, gap[..4].iter().map(|pdu| pdu.id.as_str()).collect::<Vec<_>>());
    }

    #[test]
    fn what_an_event_follows_is_in_the_answer_however_old_it_is() {
        let mut room = room();
        let start = room.newest().clone();
        let known = say(&mut room, None);
        let old = say(&mut room, Some(start));
        let chain: Vec<Pdu> = (0..12)
            .scan(known.id.clone(), |before, _| {
                let pdu = say(&mut room, Some([before.clone()].into()));
                *before = pdu.id.clone();
                Some(pdu)
            })
            .collect();
        let joining = say(&mut room, None);
        let found = room.layers_before(&[joining.id].into(), &[known.id].into(), 10);
        let ids: BTreeSet<&str> = found.iter().map(|pdu| pdu.id.as_str()).collect();
        assert!(ids.contains(old.id.as_str()) && ids.contains(chain[11].id.as_str()));
        assert_eq!(found.len(), 10);
    }
}
