//! What delivery must know of a transaction's PDUs: rooms, predecessors, event ids.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use restante_federation_proto::{RoomVersion, event_id};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Predecessors of one PDU that are looked at (room versions: at most 20 `prev_events`).
const PREV_EVENTS_MAX: usize = 20;

/// Bytes of a room or event id that are looked at (the specification's limit).
const ID_BYTES_MAX: usize = 255;

/// One PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pdu {
    /// Its room.
    pub(crate) room_id: String,
    /// Its id; `None` when the room's version is unknown here or to the homeserver.
    pub(crate) event_id: Option<String>,
    /// The events that it follows.
    pub(crate) prev_events: Vec<String>,
}

/// A PDU whose room's version is not known yet.
struct Raw<'a> {
    json: &'a [u8],
    room_id: String,
    prev_events: Vec<String>,
}

/// A transaction's PDUs, before their rooms' versions are known.
pub(crate) struct Transaction<'a> {
    pdus: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
struct ContentShape<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct PduShape {
    room_id: String,
    #[serde(default)]
    prev_events: Vec<PrevEvent>,
}

/// Rooms of the first two versions name predecessors with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PrevEvent {
    Id(String),
    WithHashes(String, serde::de::IgnoredAny),
}

impl<'a> Transaction<'a> {
    /// Takes a transaction's content apart. PDUs without a room, as the create event of newer rooms, follow nothing
    /// and are left out, and so is what is malformed: the homeserver judges it.
    pub(crate) fn parse(content: &'a [u8]) -> Self {
        let shape = serde_json::from_slice::<ContentShape<'_>>(content);
        let pdus = shape.ok().and_then(|shape| shape.pdus).unwrap_or_default();
        Self { pdus: pdus.into_iter().filter_map(|raw| read(raw.get().as_bytes())).collect() }
    }

    /// The rooms that it speaks of.
    pub(crate) fn rooms(&self) -> BTreeSet<String> {
        self.pdus.iter().map(|pdu| pdu.room_id.clone()).collect()
    }

    /// The PDUs, with the ids that they have in rooms of these versions.
    pub(crate) fn pdus(&self, versions: &BTreeMap<String, String>) -> Vec<Pdu> {
        self.pdus.iter().map(|pdu| pdu.with_id(versions)).collect()
    }
}

impl Raw<'_> {
    fn with_id(&self, versions: &BTreeMap<String, String>) -> Pdu {
        let version = versions.get(&self.room_id).and_then(|name| RoomVersion::from_str(name).ok());
        Pdu {
            room_id: self.room_id.clone(),
            event_id: version.and_then(|version| event_id(self.json, version).ok()),
            prev_events: self.prev_events.clone(),
        }
    }
}

fn read(json: &[u8]) -> Option<Raw<'_>> {
    let shape: PduShape = serde_json::from_slice(json).ok()?;
    let prev_events = shape.prev_events.into_iter().take(PREV_EVENTS_MAX).map(|prev| match prev {
        PrevEvent::Id(id) | PrevEvent::WithHashes(id, _) => id,
    });
    (shape.room_id.len() <= ID_BYTES_MAX).then(|| Raw {
        json,
        room_id: shape.room_id,
        prev_events: prev_events.filter(|id| id.len() <= ID_BYTES_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predecessors_are_read_in_both_forms() {
        let content = br#"{"pdus":[
            {"room_id":"!a","prev_events":["$1","$2"]},
            {"room_id":"!b","prev_events":[["$3",{"sha256":"x"}]]}]}"#;
        let pdus = Transaction::parse(content).pdus(&BTreeMap::new());
        assert_eq!(pdus[0].prev_events, ["$1", "$2"]);
        assert_eq!(pdus[1].prev_events, ["$3"]);
        assert_eq!(pdus[1].event_id, None);
    }

    #[test]
    fn what_is_no_pdu_is_left_to_the_homeserver() {
        for content in ["", "[]", "{}", r#"{"pdus":null}"#, r#"{"pdus":[1,{"room_id":7},{}]}"#] {
            assert!(Transaction::parse(content.as_bytes()).rooms().is_empty(), "{content}");
        }
    }

    #[test]
    fn an_event_has_the_id_of_its_rooms_version() {
        let content = br#"{"pdus":[{"type":"m.x","content":{},"room_id":"!a","event_id":"$named:b","prev_events":[]}]}"#;
        let versions = |version: &str| BTreeMap::from([("!a".to_owned(), version.to_owned())]);
        let transaction = Transaction::parse(content);
        assert_eq!(transaction.pdus(&versions("1"))[0].event_id.as_deref(), Some("$named:b"));
        let hashed = transaction.pdus(&versions("10"))[0].event_id.clone().unwrap();
        assert!(hashed.starts_with('$') && hashed.len() == 44);
        assert_eq!(transaction.pdus(&versions("org.unknown"))[0].event_id, None);
    }
}
