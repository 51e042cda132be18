//! Decides what the events that the homeserver holds say of a key document. Pure.

use std::collections::BTreeMap;

use restante_federation_proto::{
    KeyDocument, KeyId, RoomVersion, ServerName, verify_event_signature,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::leads::is_user_of;
use crate::homeserver::HeldPdu;

/// Keys that one event is said to be signed with, of which a reason names so many.
const NAMED_KEYS_MAX: usize = 2;

/// An event as the homeserver gave it.
#[derive(Debug, Clone)]
pub(super) struct HeldEvent {
    /// The event.
    pub(super) pdu: HeldPdu,
    /// The room that it was asked for.
    pub(super) room_id: String,
    /// That room's version, by the homeserver's word.
    pub(super) version: RoomVersion,
}

/// What the events say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A verify key of the document signed the server's newest event.
    Proven,
    /// Another key did.
    Contradicted(String),
    /// None of the events is the server's.
    Silent,
}

#[derive(Deserialize)]
struct Shape {
    room_id: String,
    sender: String,
    origin_server_ts: u64,
    signatures: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
}

/// Whether the event is one of `server`, with its signature.
pub(super) fn speaks_for(event: &HeldEvent, server: &ServerName) -> bool {
    shape(event, server).is_some()
}

/// Judges `document` by the newest of its server's events: an older one might be signed with a key that the server
/// has given up since, and that somebody else has found. Retired keys of the document do not count at all.
pub(super) fn judgement(document: &KeyDocument, events: &[HeldEvent]) -> Judgement {
    let server = document.server_name();
    let of_server = events.iter().filter_map(|event| Some((shape(event, server)?, event)));
    let Some((shape, event)) = of_server.max_by_key(|(shape, _)| shape.origin_server_ts) else {
        return Judgement::Silent;
    };
    let pdu = event.pdu.get().as_bytes();
    let has_signed = document.verify_keys().iter().any(|(key_id, key)| {
        verify_event_signature(pdu, event.version, server, key_id, key).is_ok()
    });
    if has_signed { Judgement::Proven } else { Judgement::Contradicted(other_key(&shape, server)) }
}

/// `None` for an event of another room or server, and for one that its server did not sign.
fn shape(event: &HeldEvent, server: &ServerName) -> Option<Shape> {
    let shape: Shape = serde_json::from_str(event.pdu.get()).ok()?;
    let is_of_server = shape.room_id == event.room_id && is_user_of(&shape.sender, server);
    let is_signed = shape.signatures.get(server.as_str()).is_some_and(|keys| !keys.is_empty());
    (is_of_server && is_signed).then_some(shape)
}

fn other_key(shape: &Shape, server: &ServerName) -> String {
    let keys = shape.signatures.get(server.as_str()).into_iter().flatten();
    let named = keys.filter_map(|(key_id, _)| key_id.parse::<KeyId>().ok());
    let named: Vec<String> = named.take(NAMED_KEYS_MAX).map(|key_id| key_id.to_string()).collect();
    format!(
        "its newest event that the homeserver holds is signed with another key ({})",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use restante_federation_proto::{SigningKey, mint, sign_json};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::test_site::{BEGINNING, identity, name};

    /// The members that redaction keeps in every version from 3 on; signed as they are, they stay signed however the
    /// event is redacted.
    fn event(at: u64) -> Map<String, Value> {
        let event = json!({
            "type": "m.room.message", "room_id": "!r", "sender": "@x:b.test", "content": {}, "depth": 1,
            "origin_server_ts": at, "prev_events": [], "auth_events": [], "hashes": { "sha256": "x" },
        });
        event.as_object().unwrap().clone()
    }

    fn signed(mut event: Map<String, Value>, server: &str, key: &SigningKey) -> HeldEvent {
        sign_json(&mut event, &name(server), key);
        held(event)
    }

    fn held(event: Map<String, Value>) -> HeldEvent {
        HeldEvent {
            pdu: serde_json::value::to_raw_value(&event).unwrap(),
            room_id: "!r".to_owned(),
            version: RoomVersion::V10,
        }
    }

    fn key() -> SigningKey {
        (*identity("b.test").key).clone()
    }

    fn other_key() -> SigningKey {
        SigningKey::from_seed(key().id().clone(), &[9; 32])
    }

    fn document(key: &SigningKey) -> KeyDocument {
        mint(&name("b.test"), key, None, BEGINNING.after(Duration::from_secs(60)))
    }

    #[test]
    fn an_event_that_its_servers_key_signed_proves_the_key() {
        let events = [signed(event(1), "b.test", &key())];
        assert_eq!(judgement(&document(&key()), &events), Judgement::Proven);
        assert!(speaks_for(&events[0], &name("b.test")));
    }

    #[test]
    fn a_redacted_event_proves_the_key_as_well() {
        let mut redacted = event(1);
        sign_json(&mut redacted, &name("b.test"), &key());
        // What redaction takes away was not signed.
        redacted.insert("content".into(), json!({ "body": "hello" }));
        redacted.insert("unsigned".into(), json!({ "age": 1 }));
        assert_eq!(judgement(&document(&key()), &[held(redacted)]), Judgement::Proven);
    }

    #[test]
    fn a_key_that_did_not_sign_is_contradicted_though_it_has_the_same_id() {
        let events = [signed(event(1), "b.test", &key())];
        let judged = judgement(&document(&other_key()), &events);
        assert!(matches!(&judged, Judgement::Contradicted(reason) if reason.contains("ed25519:1")));
    }

    #[test]
    fn a_changed_event_proves_nothing() {
        let mut forged = event(1);
        sign_json(&mut forged, &name("b.test"), &key());
        forged.insert("sender".into(), "@mallory:b.test".into());
        let judged = judgement(&document(&key()), &[held(forged)]);
        assert!(matches!(judged, Judgement::Contradicted(_)));
    }

    #[test]
    fn the_newest_event_decides() {
        let events = [
            signed(event(2), "b.test", &other_key()),
            signed(event(1), "b.test", &key()),
            signed(event(3), "c.test", &key()),
        ];
        assert!(matches!(judgement(&document(&key()), &events), Judgement::Contradicted(_)));
        assert_eq!(judgement(&document(&other_key()), &events), Judgement::Proven);
    }

    #[test]
    fn a_retired_key_of_the_document_proves_nothing() {
        let retired = json!({ "key": key().public_key().to_base64(), "expired_ts": 1 });
        let mut stolen = json!({
            "server_name": "b.test", "valid_until_ts": BEGINNING,
            "verify_keys": { "ed25519:new": { "key": other_key().public_key().to_base64() } },
            "old_verify_keys": { key().id().as_str(): retired },
        });
        let thief = SigningKey::from_seed("ed25519:new".parse().unwrap(), &[9; 32]);
        sign_json(stolen.as_object_mut().unwrap(), &name("b.test"), &thief);
        let stolen = KeyDocument::parse(stolen.to_string().into()).unwrap();
        let judged = judgement(&stolen, &[signed(event(1), "b.test", &key())]);
        assert!(matches!(judged, Judgement::Contradicted(_)));
    }

    #[test]
    fn by_the_rules_of_another_room_version_an_event_proves_nothing() {
        let mut membership = event(1);
        membership.insert("type".into(), "m.room.member".into());
        membership.insert("state_key".into(), "@x:b.test".into());
        let content =
            json!({ "membership": "join", "join_authorised_via_users_server": "@y:a.test" });
        membership.insert("content".into(), content);
        let mut event = signed(membership, "b.test", &key());
        assert_eq!(judgement(&document(&key()), &[event.clone()]), Judgement::Proven);
        event.version = RoomVersion::V8;
        assert!(matches!(judgement(&document(&key()), &[event]), Judgement::Contradicted(_)));
    }

    #[test]
    fn what_is_not_the_servers_event_of_that_room_is_not_heard() {
        let mut elsewhere = event(1);
        elsewhere.insert("room_id".into(), "!elsewhere".into());
        let mut of_another = event(1);
        of_another.insert("sender".into(), "@x:c.test".into());
        let events = [
            signed(elsewhere, "b.test", &key()),
            // Another server's event does not speak for this one, even if this one's key signed it.
            signed(of_another, "b.test", &key()),
            signed(event(1), "c.test", &key()),
            held(event(1)),
            held(Map::new()),
        ];
        assert_eq!(judgement(&document(&key()), &events), Judgement::Silent);
        assert_eq!(judgement(&document(&key()), &[]), Judgement::Silent);
    }
}
