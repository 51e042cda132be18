//! Signatures over JSON by the letter of the specification, on ed25519-dalek itself.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use restante_federation_proto::{KeyId, PublicKey, ServerName};
use serde_json::Value;

use super::members;

/// What a signature over the object `json` covers.
pub(crate) fn message(json: &[u8]) -> Option<String> {
    let mut members = members(json)?;
    members.retain(|(name, _)| name != "signatures" && name != "unsigned");
    Some(super::object(&members))
}

/// The signature of `server` with the key `key_id` that the object `json` carries.
pub(crate) fn carried(json: &[u8], server: &ServerName, key_id: &KeyId) -> Option<String> {
    let (_, signatures) = members(json)?.into_iter().find(|(name, _)| name == "signatures")?;
    let value = |object: String, name: &str| {
        Some(members(object.as_bytes())?.into_iter().find(|(known, _)| known == name)?.1)
    };
    let signature = value(value(signatures, server.as_str())?, key_id.as_str())?;
    serde_json::from_str::<Value>(&signature).ok()?.as_str().map(str::to_owned)
}

/// Whether `signature` is the key's over `message`.
pub(crate) fn verifies(key: &PublicKey, message: &[u8], signature: &str) -> bool {
    let text = signature.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
    let signature = bytes.ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
    let key = VerifyingKey::from_bytes(key.as_bytes());
    signature.zip(key.ok()).is_some_and(|(signature, key)| {
        ed25519_dalek::Verifier::verify(&key, message, &signature).is_ok()
    })
}
