//! Signed JSON: what is signed verifies, what verifies was signed.

use restante_federation_proto::{sign_json, verify_json};
use serde_json::{Map, Value};

use crate::reference;
use crate::signer::{Signer, other_key, server, signer};

pub(crate) fn signed_json(json: &[u8]) {
    verifies_only_what_was_signed(json);
    let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(json) else { return };
    let Signer { name, key } = signer();
    sign_json(&mut object, &name, &key);
    let signed = serde_json::to_vec(&object).expect("a map is JSON");
    // serde_json writes into the last level that it reads; our limit is the same.
    if reference::canonical(&signed).is_none() {
        return;
    }
    let verified =
        |json: &[u8]| verify_json(json, &name, key.id(), &key.public_key()).map_err(drop);
    assert_eq!(verified(&signed), Ok(()));
    object.insert("unsigned".to_owned(), Value::from(1));
    assert_eq!(verified(&serde_json::to_vec(&object).expect("a map is JSON")), Ok(()));
    object.insert("\u{1}forged".to_owned(), Value::from(1));
    assert_eq!(verified(&serde_json::to_vec(&object).expect("a map is JSON")), Err(()));
    assert!(verify_json(&signed, &server("b.example"), key.id(), &key.public_key()).is_err());
    assert!(verify_json(&signed, &name, key.id(), &other_key()).is_err());
}

fn verifies_only_what_was_signed(json: &[u8]) {
    let Signer { name, key } = signer();
    let public = key.public_key();
    let verified = verify_json(json, &name, key.id(), &public).is_ok();
    let message = reference::signature::message(json);
    let signature = reference::signature::carried(json, &name, key.id());
    let expected = message.zip(signature).is_some_and(|(message, signature)| {
        reference::signature::verifies(&public, message.as_bytes(), &signature)
    });
    assert_eq!(verified, expected);
}
