//! What delivery must know of a transaction's PDUs: rooms, predecessors, event ids.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use bytes::Bytes;
use restante_federation_proto::{RoomVersion, ServerName, UserId, event_id};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Predecessors of one PDU that are looked at (room versions: at most 20 `prev_events`).
const PREV_EVENTS_MAX: usize = 20;

/// Bytes of a room or event id that are looked at (the specification's limit).
const ID_BYTES_MAX: usize = 255;

/// One PDU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pdu {
    /// Its room.
    pub(crate) room_id: String,
    /// Its id; `None` when the room's version is unknown here or to the homeserver.
    pub(crate) event_id: Option<String>,
    /// The events that it follows.
    pub(crate) prev_events: Vec<String>,
    /// The server of its sender; `None` where it names none.
    pub(crate) sender: Option<ServerName>,
    /// Whether it says which servers may take part in the room.
    pub(crate) is_acl: bool,
    /// Itself.
    pub(crate) json: Bytes,
}

/// PDUs before their rooms' versions, and so their ids, are known.
pub(crate) struct Transaction {
    pdus: Vec<Pdu>,
    edus: usize,
}

#[derive(Deserialize)]
struct ContentShape<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    edus: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct PduShape {
    room_id: String,
    #[serde(default)]
    prev_events: Vec<PrevEvent>,
    #[serde(default)]
    sender: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// Rooms of the first two versions name predecessors with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PrevEvent {
    Id(String),
    WithHashes(String, IgnoredAny),
}

impl Transaction {
    /// Takes a transaction's content apart. PDUs without a room, as the create event of newer rooms, follow nothing
    /// and are left out, and so is what is malformed: the homeserver judges it.
    pub(crate) fn parse(content: &Bytes) -> Self {
        let shape = serde_json::from_slice::<ContentShape<'_>>(content);
        let Ok(ContentShape { pdus, edus }) = shape else { return Self::of([]) };
        let pdus = pdus.unwrap_or_default().into_iter();
        let edus = edus.unwrap_or_default().len();
        Self { edus, ..Self::of(pdus.map(|raw| content.slice_ref(raw.get().as_bytes()))) }
    }

    /// Takes single PDUs, without EDUs.
    pub(crate) fn of(pdus: impl IntoIterator<Item = Bytes>) -> Self {
        Self { pdus: pdus.into_iter().filter_map(read).collect(), edus: 0 }
    }

    /// The rooms that it speaks of.
    pub(crate) fn rooms(&self) -> BTreeSet<String> {
        self.pdus.iter().map(|pdu| pdu.room_id.clone()).collect()
    }

    /// How many EDUs it holds.
    pub(crate) fn edus(&self) -> usize {
        self.edus
    }

    /// The PDUs, with the ids that they have in rooms of these versions.
    pub(crate) fn pdus(self, versions: &BTreeMap<String, String>) -> Vec<Pdu> {
        self.pdus.into_iter().map(|pdu| pdu.with_id(versions)).collect()
    }
}

impl Pdu {
    fn with_id(self, versions: &BTreeMap<String, String>) -> Self {
        let version = versions.get(&self.room_id).and_then(|name| RoomVersion::from_str(name).ok());
        let id = version.and_then(|version| event_id(&self.json, version).ok());
        Self { event_id: id, ..self }
    }
}

fn read(json: Bytes) -> Option<Pdu> {
    let shape: PduShape = serde_json::from_slice(&json).ok()?;
    let prev_events = shape.prev_events.into_iter().take(PREV_EVENTS_MAX).map(|prev| match prev {
        PrevEvent::Id(id) | PrevEvent::WithHashes(id, _) => id,
    });
    let sender = shape.sender.and_then(|sender| sender.parse::<UserId>().ok());
    (shape.room_id.len() <= ID_BYTES_MAX).then(|| Pdu {
        room_id: shape.room_id,
        event_id: None,
        prev_events: prev_events.filter(|id| id.len() <= ID_BYTES_MAX).collect(),
        sender: sender.map(|sender| sender.server_name().clone()),
        is_acl: shape.kind.as_deref() == Some("m.room.server_acl"),
        json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predecessors_are_read_in_both_forms() {
        let content = Bytes::from_static(
            br#"{"pdus":[
            {"room_id":"!a","prev_events":["$1","$2"]},
            {"room_id":"!b","prev_events":[["$3",{"sha256":"x"}]]}]}"#,
        );
        let pdus = Transaction::parse(&content).pdus(&BTreeMap::new());
        assert_eq!(pdus[0].prev_events, ["$1", "$2"]);
        assert_eq!(pdus[1].prev_events, ["$3"]);
        assert_eq!(pdus[1].event_id, None);
    }

    #[test]
    fn what_is_no_pdu_is_left_to_the_homeserver() {
        for content in ["", "[]", "{}", r#"{"pdus":null}"#, r#"{"pdus":[1,{"room_id":7},{}]}"#] {
            assert!(Transaction::parse(&content.into()).rooms().is_empty(), "{content}");
        }
    }

    #[test]
    fn an_event_has_the_id_of_its_rooms_version() {
        let content = br#"{"pdus":[{"type":"m.x","content":{},"room_id":"!a","event_id":"$named:b","prev_events":[]}]}"#;
        let versions = |version: &str| BTreeMap::from([("!a".to_owned(), version.to_owned())]);
        let id = |version| {
            let content = Bytes::from_static(content);
            Transaction::parse(&content).pdus(&versions(version))[0].event_id.clone()
        };
        assert_eq!(id("1").as_deref(), Some("$named:b"));
        let hashed = id("10").unwrap();
        assert!(hashed.starts_with('$') && hashed.len() == 44);
        assert_eq!(id("org.unknown"), None);
    }

    #[test]
    fn the_senders_server_and_what_limits_a_room_are_seen() {
        let content = Bytes::from_static(
            br#"{"edus":[{}],"pdus":[{"room_id":"!a","sender":"@x:c.test:84","type":"m.room.server_acl"}]}"#,
        );
        let transaction = Transaction::parse(&content);
        assert_eq!(transaction.edus(), 1);
        let pdus = transaction.pdus(&BTreeMap::new());
        assert_eq!(pdus[0].sender.as_ref().unwrap().as_str(), "c.test:84");
        assert!(pdus[0].is_acl);
        assert!(content.ends_with(&[&pdus[0].json, b"]}".as_slice()].concat()));
    }
}
