use bytes::Bytes;
use proptest::prelude::*;
use restante_federation_proto::mint;
use restante_relay_api::limits::{CAPSULE_BYTES_MAX, CAPSULE_PDUS_MAX};
use restante_relay_api::{Capsule, CapsuleError, Content, DepositBody, Extras, Proof, hex};

use sha2::{Digest, Sha256};

use crate::{key, server};

fn pdu(text: &str) -> Bytes {
    Bytes::from(format!(r#"{{"type":"m.x","content":{{"body":"{text}"}}}}"#))
}

fn document(name: &str) -> Bytes {
    let until = restante_federation_proto::Timestamp::from_millis(5);
    mint(&server(name), &key(1), None, until).raw().clone()
}

fn parse(json: &str) -> Result<Capsule, CapsuleError> {
    Capsule::parse(json.as_bytes())
}

#[test]
fn events_keep_their_order_and_the_hash_is_that_of_the_canonical_form() {
    let keys = [(server("c.test"), document("c.test"))];
    let capsule = Capsule::new(&[pdu("1"), pdu("2")], keys.iter().map(|(a, b)| (a, b))).unwrap();
    let bodies: Vec<serde_json::Value> =
        capsule.pdus().iter().map(|pdu| serde_json::from_slice(pdu).unwrap()).collect();
    assert_eq!(
        (&bodies[0]["content"]["body"], &bodies[1]["content"]["body"]),
        (&"1".into(), &"2".into())
    );
    assert_eq!(capsule.keys()[&server("c.test")], keys[0].1);

    let spaced = String::from_utf8(capsule.canonical().to_vec()).unwrap().replace(',', " , ");
    let again = parse(&spaced).unwrap();
    assert_eq!(again, capsule);
    assert_eq!(hex(again.sha256()), hex(&Sha256::digest(capsule.canonical())));
}

#[test]
fn what_is_no_capsule_is_refused() {
    for json in
        ["[]", "{}", r#"{"pdus":7}"#, r#"{"pdus":[7]}"#, r#"{"pdus":[],"keys":{"c.test":1}}"#]
    {
        assert_eq!(parse(json), Err(CapsuleError::Malformed), "{json}");
    }
    assert_eq!(parse(r#"{"pdus":[],"keys":{"no name":{}}}"#), Err(CapsuleError::Malformed));
    assert!(matches!(parse(""), Err(CapsuleError::Json(_))));
    assert!(matches!(parse(r#"{"pdus":[{"a":1,"a":2}]}"#), Err(CapsuleError::Json(_))));
}

#[test]
fn a_capsule_has_limits() {
    let many = |count: usize| parse(&format!(r#"{{"pdus":[{}]}}"#, vec!["{}"; count].join(",")));
    assert!(many(CAPSULE_PDUS_MAX).is_ok());
    assert_eq!(many(CAPSULE_PDUS_MAX + 1), Err(CapsuleError::TooLarge));
    let bytes =
        |pdu: usize, count: usize| Capsule::new(&vec![self::pdu(&"x".repeat(pdu)); count], []);
    assert!(bytes(60_000, 60).is_ok());
    assert_eq!(bytes(60_000, CAPSULE_BYTES_MAX / 60_000 + 1), Err(CapsuleError::TooLarge));
    assert_eq!(bytes(200_000, 1), Err(CapsuleError::TooLarge));
}

#[test]
fn a_deposit_carries_its_capsule_beside_what_was_signed() {
    let capsule = Capsule::new(&vec![pdu(&"x".repeat(60_000)); 60], []).unwrap();
    let content = Content::parse(Bytes::from_static(br#"{"pdus":[]}"#)).unwrap();
    let proof = Proof { uri: "u".into(), authorization: "x".into() };
    let extras = Extras::new(&proof, b"{}", b"{}").unwrap().with_capsule(&capsule).unwrap();
    let body = DepositBody::parse(content.to_deposit_body(&extras).unwrap()).unwrap();
    assert_eq!(body.content.sha256(), content.sha256());
    assert_eq!(Capsule::parse(&body.extras.capsule.unwrap()).unwrap(), capsule);
    assert_eq!(body.extras.proof, Some(proof));
}

proptest! {
    #[test]
    fn no_text_like_json_makes_the_parser_panic(json in "[{}\\[\\]\":,a-z\\\\.0-9 ]{0,60}") {
        let _ = parse(&json);
        let _ = parse(&format!(r#"{{"pdus":[{json}],"keys":{{{json}}}}}"#));
    }
}
