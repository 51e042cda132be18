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
    unreadable: usize,
}

#[derive(Deserialize)]
struct ContentShape<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct PduShape {
    room_id: Option<String>,
    #[serde(default)]
    prev_events: Vec<PrevEvent>,
    #[serde(default)]
    sender: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// The event that makes a room.
#[derive(Deserialize)]
struct CreateShape {
    #[serde(rename = "type")]
    kind: String,
    content: CreateContent,
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: String,
}

/// Rooms of the first two versions name predecessors with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PrevEvent {
    Id(String),
    WithHashes(String, IgnoredAny),
}

impl Transaction {
    /// Takes a transaction's content apart. What is malformed is only counted: the homeserver judges it.
    pub(crate) fn parse(content: &Bytes) -> Self {
        let shape = serde_json::from_slice::<ContentShape<'_>>(content);
        let Ok(ContentShape { pdus }) = shape else { return Self::of([]) };
        let pdus = pdus.unwrap_or_default().into_iter();
        Self::of(pdus.map(|raw| content.slice_ref(raw.get().as_bytes())))
    }

    /// Takes single PDUs.
    pub(crate) fn of(pdus: impl IntoIterator<Item = Bytes>) -> Self {
        let (mut read_pdus, mut unreadable) = (Vec::new(), 0);
        for pdu in pdus {
            match read(pdu) {
                Some(pdu) => read_pdus.push(pdu),
                None => unreadable += 1,
            }
        }
        Self { pdus: read_pdus, unreadable }
    }

    /// The rooms that it speaks of.
    pub(crate) fn rooms(&self) -> BTreeSet<String> {
        self.pdus.iter().map(|pdu| pdu.room_id.clone()).collect()
    }

    /// How many of its PDUs can't be read.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable
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
    let prev_events = prev_events.filter(|id| id.len() <= ID_BYTES_MAX).collect();
    let sender = shape.sender.and_then(|sender| sender.parse::<UserId>().ok());
    let kind = shape.kind.as_deref();
    let room_id = match shape.room_id {
        Some(room_id) => room_id,
        None => room_made_by(&json)?,
    };
    (room_id.len() <= ID_BYTES_MAX).then(|| Pdu {
        room_id,
        event_id: None,
        prev_events,
        sender: sender.map(|sender| sender.server_name().clone()),
        is_acl: kind == Some("m.room.server_acl"),
        json,
    })
}

/// From version 12 on, a room's id is the hash of the event that makes it, which therefore can't name it.
fn room_made_by(json: &[u8]) -> Option<String> {
    let CreateShape { kind, content } = serde_json::from_slice(json).ok()?;
    let version: RoomVersion = content.room_version.parse().ok()?;
    if kind != "m.room.create" || version < RoomVersion::V12 {
        return None;
    }
    let id = event_id(json, version).ok()?;
    Some(id.replacen('$', "!", 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn what_can_not_be_read_is_counted() {
        let content = br#"{"pdus":[1,{"room_id":7},{},{"type":"m.x"},{"room_id":"!a"}]}"#;
        let transaction = Transaction::parse(&Bytes::from_static(content));
        assert_eq!((transaction.unreadable(), transaction.rooms().len()), (4, 1));
    }

    #[test]
    fn the_event_that_makes_a_room_of_version_12_is_of_the_room_that_it_makes() {
        let create = |version: &str| {
            let create = serde_json::json!({
                "type": "m.room.create", "state_key": "", "sender": "@x:c.test", "depth": 1,
                "content": {"room_version": version}, "prev_events": [], "auth_events": [],
                "origin_server_ts": 1, "hashes": {"sha256": "x"},
            });
            Transaction::of([create.to_string().into()])
        };
        let rooms = create("12").rooms();
        let room_id = rooms.first().unwrap();
        let versions = BTreeMap::from([(room_id.clone(), "12".to_owned())]);
        let id = create("12").pdus(&versions)[0].event_id.clone().unwrap();
        assert_eq!(id[1..], room_id[1..]);
        assert!(room_id.starts_with('!') && room_id.len() == 44);
        assert_eq!(create("11").unreadable(), 1);
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
        let pdus = transaction.pdus(&BTreeMap::new());
        assert_eq!(pdus[0].sender.as_ref().unwrap().as_str(), "c.test:84");
        assert!(pdus[0].is_acl);
        assert!(content.ends_with(&[&pdus[0].json, b"]}".as_slice()].concat()));
    }

    /// A PDU with members of any form.
    fn pdu() -> impl Strategy<Value = String> {
        let name =
            prop::sample::select(vec!["room_id", "prev_events", "sender", "type", "content"]);
        let long = format!(r#""${}""#, "x".repeat(ID_BYTES_MAX));
        let value = prop_oneof![
            "null|1e999|\"[!$a]{0,3}\"|\\[(\"\\$[0-9]\",){0,30}\"\\$a\"\\]|\\[\\[\"\\$b\",[0-9]\\]\\]",
            Just(format!("[{long}]")),
            Just(long),
            Just(r#"{"room_version":"12"}"#.to_owned()),
            Just(r#""m.room.create""#.to_owned()),
        ];
        prop::collection::btree_map(name, value, 0..6).prop_map(|members| {
            let members = members.iter().map(|(name, value)| format!("\"{name}\": {value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        })
    }

    proptest! {
        #[test]
        fn each_pdu_is_read_within_bounds_or_counted(
            pdus in prop::collection::vec(prop_oneof![pdu(), Just("[7]".to_owned())], 0..8),
            version in 1..13_u8,
        ) {
            let content = Bytes::from(format!(r#"{{"pdus": [ {} ]}}"#, pdus.join(" , ")));
            let transaction = Transaction::parse(&content);
            prop_assert_eq!(transaction.pdus.len() + transaction.unreadable(), pdus.len());
            let rooms = transaction.rooms().into_iter();
            let versions = rooms.map(|room_id| (room_id, version.to_string())).collect();
            for pdu in transaction.pdus(&versions) {
                prop_assert!(pdus.iter().any(|json| *json == pdu.json), "it keeps its bytes");
                prop_assert!(pdu.room_id.len() <= ID_BYTES_MAX);
                prop_assert!(pdu.prev_events.len() <= PREV_EVENTS_MAX);
                prop_assert!(pdu.prev_events.iter().all(|id| id.len() <= ID_BYTES_MAX));
                prop_assert_eq!(pdu.event_id, event_id(&pdu.json, versions[&pdu.room_id].parse().unwrap()).ok());
            }
        }

        #[test]
        fn no_bytes_are_a_transaction_that_breaks_anything(content in any::<Vec<u8>>()) {
            let transaction = Transaction::parse(&content.into());
            prop_assert!(transaction.rooms().is_empty());
        }
    }
}
