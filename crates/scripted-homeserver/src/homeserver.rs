//! The state of one homeserver, and what changes it. Nothing here waits or asks.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation::Identity;
use restante_federation_proto::{KeyId, PublicKey, ServerName, Timestamp};
use serde_json::{Value, json};

use crate::gaps::FailedPulls;
use crate::habits::Habits;
use crate::known_keys::KnownKeys;
use crate::outbox::Outbox;
use crate::pdu::Pdu;
use crate::room::{Room, RoomError};
use crate::staging::{Staged, Staging};
use crate::transactions::Transactions;

/// An EDU as it took effect.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenEdu {
    /// The transaction's origin.
    pub origin: ServerName,
    /// Its type.
    pub kind: String,
    /// Its content.
    pub content: Value,
}

/// What the homeserver's user saw, and what was dropped without a word.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// EDUs in the order in which they took effect.
    pub edus: Vec<TakenEdu>,
    /// Events that were taken with a 200 and then dropped, with the reason.
    pub dropped: Vec<(String, &'static str)>,
}

/// A homeserver with one user, `@user` of its name. Everything survives a restart but what Synapse forgets as well.
pub struct Homeserver {
    pub(crate) identity: Identity,
    pub(crate) habits: Habits,
    pub(crate) rooms: BTreeMap<String, Room>,
    pub(crate) keys: KnownKeys,
    pub(crate) transactions: Transactions,
    pub(crate) staging: Staging,
    pub(crate) failed_pulls: FailedPulls,
    pub(crate) outboxes: BTreeMap<ServerName, Outbox>,
    pub(crate) first_txn: u64,
    pub(crate) seen: Seen,
    message_ids: BTreeSet<(ServerName, String)>,
    next_message: u64,
}

impl Homeserver {
    /// A homeserver in no room. Its transactions are numbered from `now` on, as Synapse's.
    pub fn new(identity: Identity, habits: Habits, now: Timestamp) -> Self {
        Self {
            identity,
            habits,
            rooms: BTreeMap::new(),
            keys: KnownKeys::default(),
            transactions: Transactions::default(),
            staging: Staging::default(),
            failed_pulls: FailedPulls::default(),
            outboxes: BTreeMap::new(),
            first_txn: now.as_millis(),
            seen: Seen::default(),
            message_ids: BTreeSet::new(),
            next_message: 0,
        }
    }

    /// Its name.
    pub fn server_name(&self) -> &ServerName {
        &self.identity.server_name
    }

    /// It is in `room` from now on, with everything that is in it.
    pub fn enter(&mut self, room: Room) {
        self.rooms.insert(room.id().to_owned(), room);
    }

    /// A room that it is in.
    pub fn room(&self, room_id: &str) -> Option<&Room> {
        self.rooms.get(room_id)
    }

    /// All rooms that it is in.
    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.rooms.values()
    }

    /// What its user saw beside the rooms.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Whether it has a key document of `server`.
    pub fn knows_keys_of(&self, server: &ServerName) -> bool {
        self.keys.document(server).is_some()
    }

    /// Whether everything that is kept until it was sent has been sent.
    pub fn has_sent_all(&self) -> bool {
        self.outboxes.values().all(Outbox::is_empty)
    }

    /// Its user writes `body`, after `follows` or after the newest events. The host sends it at its next turn.
    pub(crate) fn say(
        &mut self,
        room_id: &str,
        body: &str,
        follows: Option<BTreeSet<String>>,
        now: Timestamp,
    ) -> Result<Pdu, RoomError> {
        self.write(room_id, "m.room.message", None, json!({ "body": body }), follows, now)
    }

    /// Its user writes any event.
    pub(crate) fn write(
        &mut self,
        room_id: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        follows: Option<BTreeSet<String>>,
        now: Timestamp,
    ) -> Result<Pdu, RoomError> {
        let own_name = self.identity.server_name.clone();
        let room = self.rooms.get_mut(room_id);
        let room = room.ok_or_else(|| RoomError::NotAMember(own_name.clone()))?;
        let pdu = room.write(&self.identity, kind, state_key, content, follows, now)?;
        for member in room.members().clone().into_iter().filter(|member| *member != own_name) {
            self.outboxes.entry(member).or_default().pdu(room_id, &pdu.id);
        }
        Ok(pdu)
    }

    /// Its user sends a message to the devices of the user of `destination`.
    pub(crate) fn send_to_device(&mut self, destination: &ServerName, text: &str) {
        self.next_message += 1;
        let message_id = format!("m{}", self.next_message);
        let edu = json!({"edu_type": "m.direct_to_device", "content": {
            "sender": format!("@user:{}", self.identity.server_name), "type": "m.test",
            "message_id": message_id,
            "messages": {format!("@user:{destination}"): {"*": {"text": text}}},
        }});
        self.outboxes.entry(destination.clone()).or_default().kept_edu(edu);
    }

    /// Its user types.
    pub(crate) fn typing(&mut self, destination: &ServerName, room_id: &str) {
        let edu = json!({"edu_type": "m.typing", "content": {
            "room_id": room_id, "user_id": format!("@user:{}", self.identity.server_name), "typing": true,
        }});
        self.outboxes.entry(destination.clone()).or_default().passing_edu(edu);
    }

    /// The key, if it is known and was valid at `at`. The own key always is.
    pub(crate) fn key(
        &self,
        server: &ServerName,
        key_id: &KeyId,
        at: Timestamp,
    ) -> Option<PublicKey> {
        if *server == self.identity.server_name {
            return (key_id == self.identity.key.id()).then(|| self.identity.key.public_key());
        }
        self.keys.key(server, key_id, at)
    }

    /// An EDU takes effect; a to-device message only once.
    pub(crate) fn take_edu(&mut self, origin: &ServerName, edu: &Value) {
        let (kind, content) = (edu["edu_type"].as_str().unwrap_or_default(), &edu["content"]);
        if let Some(message_id) = content["message_id"].as_str()
            && !self.message_ids.insert((origin.clone(), message_id.to_owned()))
        {
            return;
        }
        let taken =
            TakenEdu { origin: origin.clone(), kind: kind.to_owned(), content: content.clone() };
        self.seen.edus.push(taken);
    }

    /// A genuine event waits to be looked at, or is dropped because too many do.
    pub(crate) fn stage(&mut self, staged: Staged) {
        let id = staged.pdu.id.clone();
        if !self.staging.put(staged, self.habits.staged_max) {
            self.seen.dropped.push((id, "too many events wait"));
        }
    }

    /// The event is stored: its user sees it.
    pub(crate) fn store(&mut self, pdu: Pdu) {
        if let Some(room) = self.rooms.get_mut(&pdu.room_id) {
            room.insert(pdu);
        }
    }

    pub(crate) fn drop_event(&mut self, id: &str, why: &'static str) {
        self.seen.dropped.push((id.to_owned(), why));
    }

    /// Forgets what is only in memory.
    pub(crate) fn restart(&mut self) {
        self.transactions.restart();
        for outbox in self.outboxes.values_mut() {
            outbox.restart();
        }
    }
}
