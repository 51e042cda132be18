//! Capsules: limits, and what is in one survives being left along with a deposit.

use bytes::Bytes;
use restante_relay_api::limits::{CAPSULE_BYTES_MAX, CAPSULE_KEYS_MAX, CAPSULE_PDUS_MAX};
use restante_relay_api::{Capsule, DepositBody, Extras};
use sha2::{Digest, Sha256};

use crate::reference;

pub(crate) fn capsule(json: &[u8]) {
    let Ok(capsule) = Capsule::parse(json) else { return };
    assert_eq!(
        Some(capsule.canonical().as_ref()),
        reference::canonical(json).as_deref().map(str::as_bytes)
    );
    assert_eq!(capsule.sha256()[..], Sha256::digest(capsule.canonical())[..]);
    assert!(capsule.pdus().len() <= CAPSULE_PDUS_MAX && capsule.keys().len() <= CAPSULE_KEYS_MAX);
    assert!(capsule.canonical().len() <= CAPSULE_BYTES_MAX);
    assert_eq!(Capsule::parse(capsule.canonical()).as_ref(), Ok(&capsule));
    let rebuilt = Capsule::new(capsule.pdus(), capsule.keys()).expect("its parts are in bounds");
    assert_eq!((rebuilt.pdus(), rebuilt.keys()), (capsule.pdus(), capsule.keys()));
    assert_carried(&capsule);
}

fn assert_carried(capsule: &Capsule) {
    let body = DepositBody::parse(Bytes::from_static(b"{\"pdus\":[]}")).expect("a transaction");
    // One level deeper than it was by itself.
    let Ok(extras) = Extras::default().with_capsule(capsule) else { return };
    let deposit = body.content.to_deposit_body(&extras).expect("a content with members");
    let again = DepositBody::parse(deposit).expect("what a node leaves is a deposit");
    assert_eq!(again.content, body.content);
    let carried = again.extras.capsule.expect("the capsule is carried");
    assert_eq!(Capsule::parse(&carried).as_ref(), Ok(capsule));
}
