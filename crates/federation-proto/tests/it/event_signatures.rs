//! Signatures on events against recorded vectors: `vectors/event-signatures.json`, PDUs of every room version that
//! Synapse 1.163 signed, each whole and redacted.

use proptest::prelude::*;
use restante_federation_proto::{
    BadSignature, EventIdError, EventSignatureError, KeyId, PublicKey, RoomVersion, ServerName,
    SigningKey, verify_event_signature,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::generated_json::document;

#[derive(Deserialize)]
struct Vectors {
    verify_key: String,
    events: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    room_version: String,
    case: String,
    pdu: String,
    redacted: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/event-signatures.json")).unwrap()
}

fn signer() -> (ServerName, KeyId) {
    ("a.example".parse().unwrap(), "ed25519:k".parse().unwrap())
}

/// Checks `pdu` as an event of the vectors' signer.
fn check(pdu: &str, version: &str) -> Result<(), EventSignatureError> {
    let key = PublicKey::from_base64(&vectors().verify_key).unwrap();
    let (server, key_id) = signer();
    verify_event_signature(pdu.as_bytes(), version.parse().unwrap(), &server, &key_id, &key)
}

/// A join of version 10, with `change` made to it.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let vectors = vectors().events;
    let join = vectors.iter().find(|vector| vector.room_version == "10" && vector.case == "join");
    let mut pdu = serde_json::from_str(&join.unwrap().pdu).unwrap();
    change(&mut pdu);
    pdu.to_string()
}

#[test]
fn what_synapse_signed_verifies_in_every_room_version_whole_and_redacted() {
    for Vector { room_version, case, pdu, redacted } in vectors().events {
        assert_eq!(check(&pdu, &room_version), Ok(()), "{case} in version {room_version}");
        assert_eq!(check(&redacted, &room_version), Ok(()), "redacted {case} in {room_version}");
    }
}

#[test]
fn an_event_does_not_verify_by_the_rules_of_another_version() {
    let pdu = changed(|_| {});
    assert_eq!(check(&pdu, "9"), Ok(()), "version 10 redacts as 9 does");
    for other in ["1", "8", "11", "12"] {
        assert_eq!(check(&pdu, other), Err(BadSignature.into()), "{other}");
    }
}

#[test]
fn what_redaction_keeps_must_be_as_it_was_signed() {
    let forgeries: [fn(&mut Value); 5] = [
        |pdu| pdu["sender"] = json!("@mallory:a.example"),
        |pdu| pdu["content"]["membership"] = json!("leave"),
        |pdu| pdu["hashes"]["sha256"] = json!("AAAA"),
        |pdu| pdu["depth"] = json!(6),
        |pdu| pdu["state_key"] = json!("@mallory:a.example"),
    ];
    for forge in forgeries {
        let forged = changed(forge);
        assert_eq!(check(&forged, "10"), Err(BadSignature.into()), "{forged}");
    }
    let redacted_away = changed(|pdu| pdu["content"]["displayname"] = json!("Mallory"));
    assert_eq!(check(&redacted_away, "10"), Ok(()), "the content hash speaks for this");
}

#[test]
fn only_that_servers_signature_with_that_key_counts() {
    let (server, key_id) = signer();
    let missing =
        || EventSignatureError::Missing { server: server.clone(), key_id: key_id.clone() };
    for without in [
        changed(|pdu| pdu["signatures"] = json!({})),
        changed(|pdu| drop(pdu.as_object_mut().unwrap().remove("signatures"))),
        changed(|pdu| pdu["signatures"] = json!({ "b.example": pdu["signatures"]["a.example"] })),
        changed(|pdu| pdu["signatures"] = json!({ "a.example": { "ed25519:other": "AAAA" } })),
        changed(|pdu| pdu["signatures"] = json!({ "a.example": { "ed25519:k": 1 } })),
        changed(|pdu| pdu["signatures"] = json!("a.example")),
    ] {
        assert_eq!(check(&without, "10"), Err(missing()), "{without}");
    }
    let garbled = changed(|pdu| pdu["signatures"]["a.example"]["ed25519:k"] = json!("AAAA"));
    assert_eq!(check(&garbled, "10"), Err(BadSignature.into()));
    let other = SigningKey::from_seed(key_id.clone(), &[2; 32]).public_key();
    let pdu = changed(|_| {});
    let checked =
        verify_event_signature(pdu.as_bytes(), RoomVersion::V10, &server, &key_id, &other);
    assert_eq!(checked, Err(BadSignature.into()));
}

#[test]
fn what_is_no_pdu_is_refused() {
    for pdu in ["", "[]", "{}", r#"{"type":"m","type":"n","content":{}}"#] {
        let checked = check(pdu, "11");
        let malformed =
            matches!(checked, Err(EventSignatureError::Pdu(EventIdError::Malformed(_))));
        assert!(malformed, "{pdu}: {checked:?}");
    }
}

proptest! {
    #[test]
    fn no_document_makes_the_check_panic_or_pass(content in document(), bytes in any::<Vec<u8>>()) {
        let signatures = json!({ "a.example": { "ed25519:k": content } });
        let pdu = json!({ "type": "m.room.member", "content": content, "signatures": signatures });
        prop_assert!(check(&pdu.to_string(), "12").is_err());
        let key = PublicKey::from_base64(&vectors().verify_key).unwrap();
        let (server, key_id) = signer();
        let checked = verify_event_signature(&bytes, RoomVersion::V1, &server, &key_id, &key);
        prop_assert!(checked.is_err());
    }
}
