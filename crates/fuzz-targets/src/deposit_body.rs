//! Deposits: what the origin signed and what its node added come apart and together again without a change.

use bytes::Bytes;
use restante_relay_api::endpoints::MEMBER_PREFIX;
use restante_relay_api::limits::{EDUS_MAX, EXTRAS_BYTES_MAX, PDUS_MAX};
use restante_relay_api::{Content, DepositBody, Extras};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::reference;
use crate::signer::server;

pub(crate) fn deposit_body(json: &[u8]) {
    let body = Bytes::copy_from_slice(json);
    let Ok(DepositBody { content, extras }) = DepositBody::parse(body.clone()) else { return };
    let all = reference::members(json).expect("a deposit is an object");
    let (added, signed): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| name.starts_with(MEMBER_PREFIX));
    assert_eq!(content.canonical().as_ref(), reference::object(&signed).as_bytes());
    assert_eq!(content.sha256()[..], Sha256::digest(content.canonical())[..]);
    assert_eq!(extras.json.is_empty(), added.is_empty());
    assert_eq!(reference::members(&extras.json).unwrap_or_default(), added);
    assert_limits(&content, &extras);
    assert_read_again(&content, &extras);
    assert_origin_is_added(content);
}

fn assert_limits(content: &Content, extras: &Extras) {
    assert!(extras.json.len() <= EXTRAS_BYTES_MAX + 200, "a capsule's name may be escaped");
    for (name, value) in reference::members(content.canonical()).expect("content is an object") {
        let list: Option<Vec<&RawValue>> = serde_json::from_str(&value).unwrap_or(None);
        match name.as_str() {
            "pdus" => assert!(list.is_none_or(|list| list.len() <= PDUS_MAX)),
            "edus" => assert!(list.is_none_or(|list| list.len() <= EDUS_MAX)),
            _ => {}
        }
    }
}

fn assert_read_again(content: &Content, extras: &Extras) {
    assert_eq!(Extras::parse(extras.json.clone()).as_ref(), Ok(extras));
    assert_eq!(Content::parse(content.raw().clone()).as_ref(), Ok(content));
    let together = content.to_deposit_body(extras).expect("its parts were read");
    let again = DepositBody::parse(together).expect("what came apart goes together");
    assert_eq!(again.content.canonical(), content.canonical());
    assert_eq!(again.extras, *extras);
}

fn assert_origin_is_added(content: Content) {
    let caller = server("caller.example");
    let origin = content.origin().cloned();
    let named = content.with_origin(&caller).expect("one more member has a canonical form");
    assert_eq!(named.origin(), Some(&origin.unwrap_or(caller)));
    assert_eq!(Content::parse(named.raw().clone()).as_ref(), Ok(&named));
}
