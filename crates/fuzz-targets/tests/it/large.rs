//! Work grows with the length of what comes and not with its square, which would take these tests minutes.

use bytes::Bytes;
use restante_federation_proto::{
    KeyDocument, KeyId, NotaryResponse, RoomVersion, SigningKey, XMatrix, canonicalise, event_id,
    members, verify_json,
};
use restante_relay_api::{Capsule, CollectResponse, DepositBody, Proof, Waybill};

/// Enough for a fifth of a million members, whose square takes minutes.
const BYTES: usize = 2 * 1024 * 1024;

/// Documents of every awkward shape.
fn documents() -> Vec<String> {
    let object = |members: &mut dyn Iterator<Item = String>| {
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let count = BYTES / 10;
    let levels = 120;
    let deep = format!("{}0{}", r#"{"b":"#.repeat(levels), r#","a":1}"#.repeat(levels));
    vec![
        object(&mut (0..count).rev().map(|number| format!("\"{number:06}\":0"))),
        object(&mut (0..count).map(|number| format!("\"{:06}\":0", number * 7919 % count))),
        object(&mut (0..count).map(|_| "\"\":0".to_owned())),
        object(&mut (0..BYTES / 24).map(|number| format!("\"org.restante.{number}\":0"))),
        object(&mut (0..BYTES / 40).map(|number| format!("\"signatures{number}\":{{\"a\":0}}"))),
        format!("{{\"pdus\":[{}0],\"envelopes\":[{}0]}}", "0,".repeat(count), "0,".repeat(count)),
        format!("[{deep}{}]", format!(",{deep}").repeat(BYTES / deep.len())),
        format!("[{}]", ["[".repeat(levels), "]".repeat(levels)].concat()).repeat(BYTES / 300),
        format!("{{\"type\":\"{}\",\"content\":{{}}}}", "\\u0041".repeat(BYTES / 6)),
        format!("\"{}", "a".repeat(BYTES)),
        "[".repeat(BYTES),
        "{\"a\":[".repeat(BYTES / 6),
        " ".repeat(BYTES),
    ]
}

#[test]
fn documents_of_every_awkward_shape_are_read_or_refused() {
    let server = "a.example".parse().unwrap();
    let key_id: KeyId = "ed25519:k".parse().unwrap();
    let key = SigningKey::from_seed(key_id.clone(), &[1; 32]).public_key();
    for document in documents() {
        let bytes = Bytes::from(document);
        let is_object = members(&bytes).is_ok();
        assert!(canonicalise(&bytes).is_ok() || !is_object);
        assert!(verify_json(&bytes, &server, &key_id, &key).is_err());
        assert!(KeyDocument::parse(bytes.clone()).is_err());
        assert!(NotaryResponse::parse(&bytes).is_err());
        assert!(CollectResponse::parse(&bytes).is_err());
        assert!(Capsule::parse(&bytes).is_err());
        assert!(Waybill::parse(&bytes).is_err() && Proof::parse(&bytes).is_err());
        assert!(Waybill::key_ids(&bytes, &server).is_empty());
        assert!(DepositBody::parse(bytes.clone()).is_ok() <= is_object);
        assert!(event_id(&bytes, RoomVersion::V11).is_ok() <= is_object);
    }
}

#[test]
fn headers_of_every_awkward_shape_are_refused() {
    for parameter in ["a=b,", ",", "a=\"\\\"\",", "a=\"", " ", "=", "\\", "origin=a,"] {
        let header = format!("X-Matrix {}", parameter.repeat(BYTES / parameter.len()));
        assert!(header.parse::<XMatrix>().is_err());
    }
}
