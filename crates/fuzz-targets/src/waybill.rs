//! Waybills: bounds, the way through a header, and that only the origin's signature counts.

use restante_relay_api::limits::WAYBILL_BYTES_MAX;
use restante_relay_api::{Waybill, WaybillError, parse_hex};

use crate::reference;
use crate::signer::{Signer, other_key, signer};
use crate::text;

pub(crate) fn waybill(json: &[u8]) {
    let Ok(waybill) = Waybill::parse(json) else { return };
    assert!(json.len() <= WAYBILL_BYTES_MAX);
    assert!((1..1 << 53).contains(&waybill.seq) && (1..=64).contains(&waybill.stream.len()));
    assert_eq!(Waybill::from_header(&Waybill::to_header(json)).as_deref(), Ok(json));
    verifies_only_what_was_signed(json, &waybill);
    assert_signed_anew(&waybill);
}

fn verifies_only_what_was_signed(json: &[u8], waybill: &Waybill) {
    let Signer { key, .. } = signer();
    let Some(content) = content_sha256(waybill) else { return };
    let (origin, destination) = (&waybill.origin, &waybill.destination);
    let public = key.public_key();
    let verified = Waybill::verify(json, origin, destination, &content, (key.id(), &public));
    let message = reference::signature::message(json);
    let signature = reference::signature::carried(json, origin, key.id());
    let expected = message.zip(signature).is_some_and(|(message, signature)| {
        reference::signature::verifies(&public, message.as_bytes(), &signature)
    });
    assert_eq!(verified.is_ok(), expected);
    if expected {
        assert!(Waybill::key_ids(json, origin).contains(key.id()));
    }
}

fn assert_signed_anew(waybill: &Waybill) {
    let Signer { key, .. } = signer();
    let signed = waybill.signed(&key);
    // Text of control characters takes six bytes each when it is written again.
    if signed.len() > WAYBILL_BYTES_MAX {
        return;
    }
    assert_eq!(Waybill::parse(&signed).as_ref(), Ok(waybill));
    assert_eq!(reference::canonical(&signed).as_deref().map(str::as_bytes), Some(&signed[..]));
    assert_eq!(Waybill::key_ids(&signed, &waybill.origin), [key.id().clone()]);
    let Some(content) = content_sha256(waybill) else { return };
    let (origin, destination) = (&waybill.origin, &waybill.destination);
    let verified = |content, key| Waybill::verify(&signed, origin, destination, content, key);
    let (public, other) = (key.public_key(), other_key());
    assert_eq!(verified(&content, (key.id(), &public)).as_ref(), Ok(waybill));
    assert_eq!(verified(&content, (key.id(), &other)), Err(WaybillError::Signature));
    let mut altered = content;
    altered[0] ^= 1;
    assert_eq!(verified(&altered, (key.id(), &public)), Err(WaybillError::OtherTransaction));
}

/// The hash that the waybill names, when it is one.
fn content_sha256(waybill: &Waybill) -> Option<[u8; 32]> {
    parse_hex(&waybill.content_sha256)
}

/// The value of the header that goes with a direct send.
pub(crate) fn waybill_header(bytes: &[u8]) {
    let Some(value) = text(bytes) else { return };
    let Ok(json) = Waybill::from_header(value) else { return };
    assert_eq!(Waybill::to_header(&json), value, "a header has one spelling");
    waybill(&json);
}
