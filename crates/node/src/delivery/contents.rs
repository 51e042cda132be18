//! What a transaction holds, by room: its events with their ids and predecessors.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use bytes::Bytes;
use restante_federation_proto::{RoomVersion, ServerName, UserId, event_id};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::ancestors::Ancestor;
use crate::site::Site;
use crate::store::rooms;

/// Predecessors of one event (room versions: at most 20).
const PREV_EVENTS_MAX: usize = 20;

/// Bytes of an id (the specification's limit).
const ID_BYTES_MAX: usize = 255;

/// An event, with what its place in the room depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its id.
    pub(super) event_id: String,
    /// The server of its sender.
    pub(super) sender: ServerName,
    /// When it was written, by its sender's word; milliseconds.
    pub(super) written_at: u64,
    /// What it follows.
    pub(super) ancestor: Ancestor,
    /// Its JSON.
    pub(super) json: Bytes,
}

/// The events of one room in a transaction, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    /// Its id.
    pub(super) room_id: String,
    /// Its version, on which the ids depend.
    pub(super) version: RoomVersion,
    /// The events.
    pub(super) events: Vec<Event>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct RoomOnly {
    room_id: String,
}

#[derive(Deserialize)]
struct Shape {
    /// The create event of newer rooms names none: its own id is the room's.
    room_id: Option<String>,
    sender: String,
    #[serde(default)]
    prev_events: Vec<PrevEvent>,
    #[serde(default)]
    depth: u64,
    #[serde(default)]
    origin_server_ts: u64,
}

/// Rooms of the first two versions name predecessors with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PrevEvent {
    Id(String),
    WithHashes(String, IgnoredAny),
}

impl Event {
    /// Reads an event of `room_id`; `None` if it is none.
    pub(super) fn read(json: Bytes, room_id: &str, version: RoomVersion) -> Option<Self> {
        let shape: Shape = serde_json::from_slice(&json).ok()?;
        if shape.room_id.is_some_and(|named| named != room_id) {
            return None;
        }
        let prev_events =
            shape.prev_events.into_iter().take(PREV_EVENTS_MAX).map(|prev| match prev {
                PrevEvent::Id(id) | PrevEvent::WithHashes(id, _) => id,
            });
        let prev_events = prev_events.filter(|id| id.len() <= ID_BYTES_MAX).collect();
        Some(Self {
            event_id: event_id(&json, version).ok()?,
            sender: shape.sender.parse::<UserId>().ok()?.server_name().clone(),
            written_at: shape.origin_server_ts,
            ancestor: Ancestor { prev_events, depth: shape.depth },
            json,
        })
    }
}

/// The events in a transaction's `content`, by room. Rooms whose version can't be told, and what is no event, are
/// left out: nothing is known of their ids.
pub(super) async fn read(site: &Site, content: &Bytes) -> Vec<Room> {
    let by_room = by_room(content);
    if by_room.is_empty() {
        return Vec::new();
    }
    let versions = versions(site, by_room.keys().cloned().collect()).await;
    let rooms = by_room.into_iter().filter_map(|(room_id, pdus)| {
        let version = RoomVersion::from_str(versions.get(&room_id)?).ok()?;
        let events = pdus.into_iter().filter_map(|pdu| Event::read(pdu, &room_id, version));
        Some(Room { events: events.collect(), version, room_id })
    });
    rooms.collect()
}

/// How many events a transaction holds, whether or not they can be read.
pub(super) fn count(content: &Bytes) -> usize {
    let shape = serde_json::from_slice::<Content<'_>>(content).ok();
    shape.and_then(|shape| shape.pdus).map_or(0, |pdus| pdus.len())
}

fn by_room(content: &Bytes) -> BTreeMap<String, Vec<Bytes>> {
    let shape = serde_json::from_slice::<Content<'_>>(content).ok();
    let mut rooms: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for pdu in shape.and_then(|shape| shape.pdus).unwrap_or_default() {
        let Ok(RoomOnly { room_id }) = serde_json::from_str(pdu.get()) else { continue };
        if room_id.len() <= ID_BYTES_MAX {
            rooms.entry(room_id).or_default().push(content.slice_ref(pdu.get().as_bytes()));
        }
    }
    rooms
}

async fn versions(site: &Site, wanted: BTreeSet<String>) -> BTreeMap<String, String> {
    let known = rooms::versions(&site.database, wanted.clone()).await;
    let mut versions = known.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "versions of rooms can't be read");
        BTreeMap::new()
    });
    for room_id in wanted {
        if versions.contains_key(&room_id) {
            continue;
        }
        match site.homeserver.room_version(&room_id).await {
            Ok(Some(version)) => {
                // A version that is not kept is asked for again.
                rooms::remember(&site.database, room_id.clone(), version.clone()).await.ok();
                versions.insert(room_id, version);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(room_id, %error, "the room's version can't be told"),
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_with_their_ids_in_every_form() {
        let read = |json: &str, version| {
            Event::read(Bytes::copy_from_slice(json.as_bytes()), "!r", version)
        };
        let old = r#"{"type":"m.x","content":{},"room_id":"!r","event_id":"$e:c.test","sender":"@u:c.test:84","depth":7,"origin_server_ts":5,"prev_events":[["$p:c.test",{"sha256":"x"}]]}"#;
        let event = read(old, RoomVersion::V1).unwrap();
        assert_eq!((event.event_id.as_str(), event.sender.as_str()), ("$e:c.test", "c.test:84"));
        let expected = Ancestor { prev_events: vec!["$p:c.test".to_owned()], depth: 7 };
        assert_eq!((event.ancestor, event.written_at), (expected, 5));
        let create =
            r#"{"type":"m.room.create","content":{},"sender":"@u:c.test","prev_events":[]}"#;
        assert_eq!(read(create, RoomVersion::V12).unwrap().event_id.len(), 44);
        assert_eq!(read(&old.replace("\"!r\"", "\"!other\""), RoomVersion::V1), None);
        assert_eq!(read("{}", RoomVersion::V12), None);
    }

    #[test]
    fn what_is_no_event_is_left_out() {
        for content in ["", "[]", r#"{"pdus":null}"#, r#"{"pdus":[1,{},{"room_id":7}]}"#] {
            assert!(by_room(&Bytes::from_static(content.as_bytes())).is_empty(), "{content}");
        }
        let two = Bytes::from_static(
            br#"{"pdus":[{"room_id":"!a"},{"room_id":"!b"},{"room_id":"!a","x":1}]}"#,
        );
        let rooms = by_room(&two);
        assert_eq!(rooms["!a"], [r#"{"room_id":"!a"}"#, r#"{"room_id":"!a","x":1}"#]);
        assert_eq!(rooms["!b"].len(), 1);
    }
}
