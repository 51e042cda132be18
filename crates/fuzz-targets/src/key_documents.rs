//! Key documents: each verify key signed; countersigning and minting give documents that others believe as much.

use bytes::Bytes;
use restante_federation_proto::{
    KEY_DOCUMENT_BYTES_MAX, KeyDocument, Timestamp, VERIFY_KEYS_MAX, mint,
};

use crate::reference;
use crate::signer::{Signer, server, signer};

pub(crate) fn key_document(json: &[u8]) {
    let raw = Bytes::copy_from_slice(json);
    let Ok(document) = KeyDocument::parse(raw.clone()) else { return };
    assert_eq!(*document.raw(), raw);
    assert!(raw.len() <= KEY_DOCUMENT_BYTES_MAX);
    assert_self_signed(&document);
    assert_countersigned(&document);
    assert_minted(&document);
}

/// Every verify key signed the document, by the reference's reading.
pub(crate) fn assert_self_signed(document: &KeyDocument) {
    assert!((1..=VERIFY_KEYS_MAX).contains(&document.verify_keys().len()));
    let message = reference::signature::message(document.raw()).expect("a document is an object");
    for (key_id, key) in document.verify_keys() {
        let name = document.server_name();
        let signature = reference::signature::carried(document.raw(), name, key_id);
        let signature = signature.expect("each verify key signed");
        assert!(reference::signature::verifies(key, message.as_bytes(), &signature), "{key_id}");
        assert_eq!(document.key_valid_at(key_id, document.valid_until()), Some(key));
    }
}

fn assert_countersigned(document: &KeyDocument) {
    let Signer { key, .. } = signer();
    let notary = server("notary.example");
    let countersigned = document.countersigned(&notary, &key);
    let parsed = KeyDocument::parse(countersigned.clone());
    if countersigned.len() > KEY_DOCUMENT_BYTES_MAX {
        return;
    }
    let parsed = parsed.expect("a countersigned document is one still");
    assert!(parsed.is_signed_by(&notary, key.id(), &key.public_key()));
    assert_eq!(parsed.server_name(), document.server_name());
    assert_eq!(parsed.verify_keys(), document.verify_keys());
    assert_eq!(parsed.old_verify_keys(), document.old_verify_keys());
    assert_eq!(parsed.valid_until(), document.valid_until());
}

fn assert_minted(predecessor: &KeyDocument) {
    let Signer { key, .. } = signer();
    let valid_until = Timestamp::from_millis(1_700_000_000_000);
    let minted = mint(predecessor.server_name(), &key, Some(predecessor), valid_until);
    if minted.raw().len() > KEY_DOCUMENT_BYTES_MAX {
        return;
    }
    assert_eq!(KeyDocument::parse(minted.raw().clone()).as_ref(), Ok(&minted));
    assert_self_signed(&minted);
    let retired = predecessor.old_verify_keys().iter().filter(|(id, _)| *id != key.id());
    assert!(retired.eq(minted.old_verify_keys().iter()));
}
