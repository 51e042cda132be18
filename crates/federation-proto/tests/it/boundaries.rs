//! Where each limit lies: what is just within it is taken, what is just beyond is not.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use restante_federation_proto::{
    BelievedDocument, Clock, ErrorCode, Evidence, KEY_DOCUMENT_BYTES_MAX, KeyDocument, KeyId,
    ManualClock, MatrixError, NameError, Replacement, RoomVersion, ServerName, SigningKey,
    SystemClock, TRUST_MAX, Timestamp, UserId, VERIFY_KEYS_MAX, event_id, mint, replacement,
    sign_json,
};
use serde_json::{Map, Value, json};

fn server() -> ServerName {
    "a.example".parse().unwrap()
}

fn key(id: &str) -> SigningKey {
    SigningKey::from_seed(format!("ed25519:{id}").parse().unwrap(), &[7; 32])
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn a_key_document_is_read_up_to_its_limit() {
    let document = mint(&server(), &key("1"), None, at(5));
    let padded = |bytes: usize| {
        let mut raw = document.raw().to_vec();
        raw.resize(bytes, b' ');
        KeyDocument::parse(raw.into()).is_ok()
    };
    assert_eq!(KEY_DOCUMENT_BYTES_MAX, 64 * 1024);
    assert!(padded(KEY_DOCUMENT_BYTES_MAX));
    assert!(!padded(KEY_DOCUMENT_BYTES_MAX + 1));
}

#[test]
fn a_key_document_may_list_as_many_keys_as_its_limit_says() {
    let with = |count: usize| {
        let keys: Vec<_> = (0..count).map(|id| key(&id.to_string())).collect();
        let listed = keys
            .iter()
            .map(|key| (key.id().to_string(), json!({ "key": key.public_key().to_base64() })));
        let mut object = Map::new();
        object.insert("server_name".into(), "a.example".into());
        object.insert("verify_keys".into(), Value::Object(listed.collect()));
        object.insert("valid_until_ts".into(), 5.into());
        keys.iter().for_each(|key| sign_json(&mut object, &server(), key));
        KeyDocument::parse(Bytes::from(Value::Object(object).to_string())).is_ok()
    };
    assert!(with(VERIFY_KEYS_MAX));
    assert!(!with(VERIFY_KEYS_MAX + 1));
}

#[test]
fn a_key_is_valid_up_to_its_last_millisecond() {
    let document = mint(&server(), &key("1"), None, at(5));
    assert!(document.key_valid_at(key("1").id(), at(5)).is_some());
    assert!(document.key_valid_at(key("1").id(), at(6)).is_none());
}

#[test]
fn a_document_counts_until_its_own_end_or_until_trust_ends_whichever_comes_first() {
    let believed = |valid_until| BelievedDocument {
        document: mint(&server(), &key("1"), None, valid_until),
        evidence: Evidence::Vouched,
        learned_at: at(1000),
    };
    assert_eq!(TRUST_MAX, Duration::from_hours(40 * 24));
    assert_eq!(believed(at(5000)).useful_until(), at(5000));
    assert_eq!(believed(at(u64::MAX)).useful_until(), at(1000).after(TRUST_MAX));
}

#[test]
fn of_two_documents_that_are_valid_for_as_long_the_first_stays() {
    let believed = |evidence| BelievedDocument {
        document: mint(&server(), &key("1"), None, at(5)),
        evidence,
        learned_at: at(1),
    };
    let current = believed(Evidence::Vouched);
    for evidence in [Evidence::FirstContact, Evidence::Event, Evidence::Vouched] {
        let kept = replacement(Some(&current), &believed(evidence));
        assert_eq!(kept, Replacement::Keep, "{evidence:?}");
    }
}

#[test]
fn names_and_ids_have_at_most_255_bytes() {
    let name = |bytes: usize| "a".repeat(bytes).parse::<ServerName>();
    assert!(name(255).is_ok());
    assert_eq!(name(256), Err(NameError::Server("a".repeat(255))), "an excerpt is repeated");
    let user = |bytes: usize| format!("@{}:b", "ü".repeat((bytes - 3) / 2)).parse::<UserId>();
    assert!(user(255).is_ok());
    assert!(user(257).is_err());
    let event = |bytes: usize| {
        let pdu = format!(r#"{{"event_id":"${}"}}"#, "e".repeat(bytes - 1));
        event_id(pdu.as_bytes(), RoomVersion::V1).map(|id| id.len()).ok()
    };
    assert_eq!((event(255), event(256)), (Some(255), None));
}

#[test]
fn a_port_has_up_to_five_digits() {
    for (name, port) in [("a:65535", 65535), ("a:00080", 80), ("[::1]:10000", 10000)] {
        assert_eq!(name.parse::<ServerName>().unwrap().port(), Some(port), "{name}");
    }
    assert!("a:000080".parse::<ServerName>().is_err());
}

#[test]
fn a_key_id_is_text_in_json() {
    let id: KeyId = "ed25519:a_1".parse().unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), r#""ed25519:a_1""#);
    assert_eq!(serde_json::from_str::<KeyId>(r#""ed25519:a_1""#).unwrap(), id);
    assert!(serde_json::from_str::<KeyId>(r#""rsa:a_1""#).is_err());
}

#[test]
fn time_ends_at_both_ends() {
    let second = Duration::from_secs(1);
    assert_eq!(at(5).after(second), at(1005));
    assert_eq!(at(1005).before(second), at(5));
    assert_eq!(at(1005).since(at(5)), second);
    assert_eq!(at(5).since(at(1005)), Duration::ZERO);
    assert_eq!(at(5).before(second), Timestamp::EPOCH);
    assert_eq!(at(5).after(Duration::MAX), at(u64::MAX));
}

#[test]
fn a_manual_clock_stands_until_it_is_moved() {
    let clock = ManualClock::new(at(5));
    assert_eq!(clock.now(), at(5));
    clock.advance(Duration::from_millis(7));
    assert_eq!(clock.now(), at(12));
}

#[test]
fn the_system_clock_tells_a_time_after_this_was_written() {
    assert!(SystemClock.now() > at(1_750_000_000_000));
}

#[test]
fn a_refusal_has_its_code_on_the_wire() {
    let codes = [
        (ErrorCode::BadJson, "M_BAD_JSON"),
        (ErrorCode::NotJson, "M_NOT_JSON"),
        (ErrorCode::Forbidden, "M_FORBIDDEN"),
        (ErrorCode::Unauthorized, "M_UNAUTHORIZED"),
        (ErrorCode::InvalidParam, "M_INVALID_PARAM"),
        (ErrorCode::MissingParam, "M_MISSING_PARAM"),
        (ErrorCode::NotFound, "M_NOT_FOUND"),
        (ErrorCode::Unrecognized, "M_UNRECOGNIZED"),
        (ErrorCode::TooLarge, "M_TOO_LARGE"),
        (ErrorCode::LimitExceeded, "M_LIMIT_EXCEEDED"),
        (ErrorCode::Unknown, "M_UNKNOWN"),
    ];
    for (code, written) in codes {
        let refusal = MatrixError::new(StatusCode::TOO_MANY_REQUESTS, code, "wait");
        let json = format!(r#"{{"errcode":"{written}","error":"wait"}}"#);
        assert_eq!(String::from_utf8(refusal.to_json()).unwrap(), json);
        assert_eq!(refusal.to_string(), format!("429 {written}: wait"));
    }
    let later = MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, "wait");
    let later = later.retry_after(Duration::from_secs(2));
    assert_eq!(
        String::from_utf8(later.to_json()).unwrap(),
        r#"{"errcode":"M_LIMIT_EXCEEDED","error":"wait","retry_after_ms":2000}"#
    );
}
