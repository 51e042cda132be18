//! Decides where to look for events of a server: in the rooms that mail in its name speaks of. Pure.

use restante_federation_proto::ServerName;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Rooms that are searched for one envelope.
const ROOMS_MAX: usize = 3;

/// Predecessors of one event that are asked for (room versions: at most 20; mostly one).
const PREV_EVENTS_MAX: usize = 5;

/// Authorizing events that are asked for: an ordinary event names its sender's join among three or four.
const AUTH_EVENTS_MAX: usize = 5;

/// Bytes of a room or event id (the specification's limit).
const ID_BYTES_MAX: usize = 255;

/// A room, and events that the homeserver may hold if the mail speaks the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lead {
    /// The room.
    pub(super) room_id: String,
    /// What the server's event follows.
    pub(super) prev_events: Vec<String>,
    /// What authorizes the server's event.
    pub(super) auth_events: Vec<String>,
}

#[derive(Default, Deserialize)]
struct ContentShape<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct PduShape {
    room_id: String,
    sender: String,
    #[serde(default)]
    prev_events: Vec<EventReference>,
    #[serde(default)]
    auth_events: Vec<EventReference>,
}

/// Rooms of the first two versions name events with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum EventReference {
    Id(String),
    WithHashes(String, IgnoredAny),
}

/// The leads of a transaction in the name of `server`: for each room the first event of one of its users, whose
/// predecessors are likelier than others' to have arrived before.
pub(super) fn leads(content: &[u8], server: &ServerName) -> Vec<Lead> {
    let shape: ContentShape<'_> = serde_json::from_slice(content).unwrap_or_default();
    let mut leads: Vec<Lead> = Vec::new();
    for pdu in shape.pdus.unwrap_or_default() {
        let Ok(pdu) = serde_json::from_str::<PduShape>(pdu.get()) else { continue };
        let is_new = leads.iter().all(|lead| lead.room_id != pdu.room_id);
        if is_new && pdu.room_id.len() <= ID_BYTES_MAX && is_user_of(&pdu.sender, server) {
            leads.push(Lead {
                room_id: pdu.room_id,
                prev_events: ids(pdu.prev_events, PREV_EVENTS_MAX),
                auth_events: ids(pdu.auth_events, AUTH_EVENTS_MAX),
            });
        }
        if leads.len() == ROOMS_MAX {
            break;
        }
    }
    leads
}

/// Whether the user id `sender` is of `server`. Old user ids may hold any letters before the colon.
pub(super) fn is_user_of(sender: &str, server: &ServerName) -> bool {
    sender.split_once(':').is_some_and(|(_, of)| of == server.as_str())
}

fn ids(events: Vec<EventReference>, max: usize) -> Vec<String> {
    let ids = events.into_iter().map(|event| match event {
        EventReference::Id(id) | EventReference::WithHashes(id, _) => id,
    });
    ids.filter(|id| id.starts_with('$') && id.len() <= ID_BYTES_MAX).take(max).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(pdus: &Value) -> Vec<Lead> {
        let content = json!({ "pdus": pdus }).to_string();
        leads(content.as_bytes(), &"b.test".parse().unwrap())
    }

    fn pdu(room: &str, sender: &str) -> Value {
        json!({ "room_id": room, "sender": sender, "prev_events": ["$p"], "auth_events": ["$a"] })
    }

    #[test]
    fn the_first_event_of_the_server_in_each_room_leads() {
        let mut later = pdu("!1", "@x:b.test");
        later["prev_events"] = json!(["$later"]);
        let pdus = json!([pdu("!1", "@x:c.test"), pdu("!1", "@x:b.test"), later]);
        let lead = Lead {
            room_id: "!1".to_owned(),
            prev_events: vec!["$p".to_owned()],
            auth_events: vec!["$a".to_owned()],
        };
        assert_eq!(found(&pdus), [lead]);
    }

    #[test]
    fn events_are_named_in_both_forms_and_are_few() {
        let mut old = pdu("!1", "@x:b.test");
        old["prev_events"] = json!([["$1", { "sha256": "x" }]]);
        old["auth_events"] = json!((0..50).map(|number| format!("${number}")).collect::<Vec<_>>());
        let lead = &found(&json!([old]))[0];
        assert_eq!(lead.prev_events, ["$1"]);
        assert_eq!(lead.auth_events.len(), AUTH_EVENTS_MAX);
    }

    #[test]
    fn no_more_than_a_few_rooms_are_searched() {
        let pdus: Vec<Value> = (0..9).map(|room| pdu(&format!("!{room}"), "@x:b.test")).collect();
        assert_eq!(found(&json!(pdus)).len(), ROOMS_MAX);
    }

    #[test]
    fn what_is_no_event_of_the_server_leads_nowhere() {
        let long = "!".repeat(256);
        let pdus = json!([
            pdu("!1", "@x:a.test"), pdu("!1", "b.test"), pdu("!1", "@x:b.test:80"), pdu(&long, "@x:b.test"),
            1, {}, { "room_id": 1, "sender": 2 }, { "room_id": "!1", "sender": "@x:b.test", "prev_events": [1] },
        ]);
        assert_eq!(found(&pdus), []);
        for content in ["", "[]", "{}", r#"{"pdus":null}"#, r#"{"pdus":1}"#] {
            assert_eq!(leads(content.as_bytes(), &"b.test".parse().unwrap()), []);
        }
    }
}
