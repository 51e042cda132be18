use bytes::Bytes;
use proptest::prelude::*;
use restante_relay_api::{Content, DepositBody, DepositBodyError, Extras, Proof, hex};
use sha2::{Digest, Sha256};

use crate::server;

fn parse(body: &str) -> Result<DepositBody, DepositBodyError> {
    DepositBody::parse(Bytes::copy_from_slice(body.as_bytes()))
}

#[test]
fn a_body_without_members_of_ours_is_its_own_content() {
    let body = r#"{ "origin":"a.example", "pdus":null, "x": 1.0 }"#;
    let parsed = parse(body).unwrap();
    assert_eq!(parsed.content.raw(), body.as_bytes());
    assert_eq!(parsed.content.origin(), Some(&server("a.example")));
    assert_eq!(parsed.extras, Extras::default());
}

#[test]
fn what_the_origin_signed_is_the_canonical_form_and_its_hash() {
    let body = r#"{ "pdus":null, "origin_server_ts": 1.5e3, "origin":"a.example" }"#;
    let content = parse(body).unwrap().content;
    let canonical = r#"{"origin":"a.example","origin_server_ts":1.5e3,"pdus":null}"#;
    assert_eq!(content.canonical(), canonical.as_bytes());
    assert_eq!(hex(content.sha256()), hex(&Sha256::digest(canonical)));
    assert_eq!(content.origin_server_ts(), Some(1500.0));
    assert_eq!(parse("{}").unwrap().content.origin_server_ts(), None);
}

#[test]
fn members_of_ours_are_taken_out_and_every_other_byte_stays() {
    let body = r#"{"edus":[{"a":1e2}],"org.restante.future":[1],"origin":"a.example","org.restante.proof":{"uri":"u","authorization":"x"}}"#;
    let parsed = parse(body).unwrap();
    assert_eq!(parsed.content.raw(), r#"{"edus":[{"a":1e2}],"origin":"a.example"}"#.as_bytes());
    let proof = Proof { uri: "u".into(), authorization: "x".into() };
    assert_eq!(parsed.extras.proof, Some(proof));
    let kept = std::str::from_utf8(&parsed.extras.json).unwrap();
    assert!(kept.contains(r#""org.restante.future":[1]"#), "{kept}");
}

#[test]
fn an_escaped_name_of_ours_is_ours_too() {
    let parsed = parse(r#"{"\u006frg.restante.waybill":{"seq":1},"pdus":[]}"#).unwrap();
    assert_eq!(parsed.content.raw(), br#"{"pdus":[]}"#.as_slice());
    assert_eq!(parsed.extras.waybill.unwrap(), br#"{"seq":1}"#.as_slice());
}

#[test]
fn each_member_of_ours_is_found_by_its_name() {
    let body = r#"{"org.restante.capsule":{"c":1},"org.restante.keys":{"k":1},"org.restante.relays":{"r":1},"org.restante.waybill":{"w":1}}"#;
    let Extras { waybill, keys, capsule, record, .. } = parse(body).unwrap().extras;
    assert_eq!(waybill.as_deref(), Some(br#"{"w":1}"#.as_slice()));
    assert_eq!(keys.as_deref(), Some(br#"{"k":1}"#.as_slice()));
    assert_eq!(capsule.as_deref(), Some(br#"{"c":1}"#.as_slice()));
    assert_eq!(record.as_deref(), Some(br#"{"r":1}"#.as_slice()));
}

#[test]
fn whether_a_relay_is_to_deliver_it_is_said_to_that_relay_alone() {
    let body = r#"{"org.restante.\u006fnward":true,"org.restante.keys":{"k":1},"pdus":[]}"#;
    let asking = parse(body).unwrap().extras;
    assert_eq!(asking.onward, Some(true));
    let travelling = asking.without_onward().unwrap();
    assert_eq!((travelling.onward, travelling.keys.is_some()), (None, true));
    assert_eq!(travelling.json, br#"{"org.restante.keys":{"k":1}}"#.as_slice());
    assert_eq!(travelling.asking_onward().unwrap().onward, Some(true));

    let only = parse(r#"{"org.restante.onward":false,"pdus":[]}"#).unwrap().extras;
    assert_eq!(only.onward, Some(false));
    assert_eq!(only.without_onward().unwrap(), Extras::default());
    assert_eq!(parse(r#"{"org.restante.onward":null}"#).unwrap().extras.onward, None);
    let odd = parse(r#"{"org.restante.onward":"true"}"#);
    assert!(matches!(odd, Err(DepositBodyError::Member { .. })), "{odd:?}");
}

#[test]
fn null_members_count_as_absent() {
    let parsed = parse(r#"{"org.restante.proof":null,"org.restante.keys":null}"#).unwrap();
    assert_eq!((parsed.extras.proof, parsed.extras.keys), (None, None));
}

#[test]
fn broken_members_are_refused() {
    let member = |body: &str| matches!(parse(body), Err(DepositBodyError::Member { .. }));
    assert!(member(r#"{"origin":"not a name"}"#));
    assert!(member(r#"{"origin":null}"#));
    assert!(member(r#"{"origin_server_ts":"1"}"#));
    assert!(member(r#"{"pdus":7}"#));
    assert!(matches!(parse(r#"{"org.restante.proof":7}"#), Err(DepositBodyError::Proof(_))));
    assert!(matches!(parse("[]"), Err(DepositBodyError::Json(_))));
    assert!(matches!(parse(""), Err(DepositBodyError::Json(_))));
}

#[test]
fn a_fifty_first_pdu_and_a_hundred_and_first_edu_are_too_many() {
    let with = |name: &str, count: usize| {
        parse(&format!(r#"{{"{name}":[{}]}}"#, vec!["{}"; count].join(",")))
    };
    assert!(with("pdus", 50).is_ok() && with("edus", 100).is_ok());
    assert!(matches!(with("pdus", 51), Err(DepositBodyError::TooMany)));
    assert!(matches!(with("edus", 101), Err(DepositBodyError::TooMany)));
}

#[test]
fn added_members_have_a_limit() {
    let body = format!(r#"{{"org.restante.keys":"{}"}}"#, "x".repeat(128 * 1024));
    assert!(matches!(parse(&body), Err(DepositBodyError::ExtrasTooLarge)));
}

#[test]
fn an_origin_that_is_missing_is_filled_and_one_that_is_there_stays() {
    let fill = |body: &str| {
        let content = Content::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        content.with_origin(&server("b.example")).unwrap()
    };
    assert_eq!(fill("{}").raw(), br#"{"origin":"b.example"}"#.as_slice());
    assert_eq!(fill(r#"{"pdus":[]}"#).raw(), br#"{"origin":"b.example","pdus":[]}"#.as_slice());
    assert_eq!(fill(r#"{"origin":"a.example"}"#).origin(), Some(&server("a.example")));
}

proptest! {
    #[test]
    fn what_a_node_adds_comes_off_again(content in json_object(), waybill in json_object(), keys in json_object()) {
        let content = Content::parse(Bytes::from(content)).unwrap();
        let proof = Proof { uri: "/x\"y".into(), authorization: "z".into() };
        let extras = Extras::new(&proof, waybill.as_bytes(), keys.as_bytes()).unwrap();
        let parsed = DepositBody::parse(content.to_deposit_body(&extras).unwrap()).unwrap();
        prop_assert_eq!(parsed.content.canonical(), content.canonical());
        prop_assert_eq!(parsed.content.sha256(), content.sha256());
        prop_assert_eq!(&parsed.extras, &extras);
        prop_assert_eq!(Extras::parse(parsed.extras.json.clone()).unwrap(), parsed.extras);
        prop_assert_eq!(extras.proof, Some(proof));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = DepositBody::parse(Bytes::from(body));
    }

    #[test]
    fn no_text_like_json_makes_the_parser_panic(body in "[{}\\[\\]\":,a-z\\\\.0-9 ]{0,60}") {
        let _ = DepositBody::parse(Bytes::from(body));
    }
}

/// Objects with a few members of any simple value.
fn json_object() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "[a-z\u{e9}\u{1f600}\"\\\\]{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("[1,{\"a\":null}]".to_owned()),
        Just("-1.50e3".to_owned()),
    ];
    prop::collection::btree_map("[a-z]{1,6}x", value, 0..6).prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", members.join(", "))
    })
}

#[test]
fn the_id_of_a_delivery_comes_back_and_garbage_is_none() {
    let id = restante_relay_api::RequestId::of(7);
    let extras = Extras::default().with_request_id(&id).unwrap();
    assert_eq!(Extras::parse(extras.json).unwrap().request_id(), Some(id));
    for json in
        ["", "{}", r#"{"org.restante.request_id":7}"#, r#"{"org.restante.request_id":"a b"}"#]
    {
        assert_eq!(Extras::parse(json.into()).unwrap().request_id(), None, "{json}");
    }
}
