//! Signing JSON (Matrix specification, appendix "Signing JSON").

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::json_scanner::push_string;
use crate::{
    BadSignature, CanonicalJsonError, KeyId, PublicKey, ServerName, Signature, SigningKey,
};

/// Why a signed object does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedJsonError {
    /// Not an object with a canonical form.
    #[error(transparent)]
    Json(#[from] CanonicalJsonError),
    /// The object carries no signature by that server and key.
    #[error("no signature by {server} with {key_id}")]
    Missing {
        /// The server that should have signed.
        server: ServerName,
        /// The key that it should have signed with.
        key_id: KeyId,
    },
    /// The signature is wrong.
    #[error(transparent)]
    Bad(#[from] BadSignature),
}

/// Adds `server`'s signature with `key` to `object`, beside the signatures it has.
pub fn sign_json(object: &mut Map<String, Value>, server: &ServerName, key: &SigningKey) {
    let signatures = object.remove("signatures");
    let unsigned = object.remove("unsigned");
    let signature = key.sign(&canonical_bytes(object)).to_base64();
    let signatures = with_signature(signatures, server, key.id(), signature);
    object.insert("signatures".to_owned(), signatures);
    object.extend(unsigned.map(|unsigned| ("unsigned".to_owned(), unsigned)));
}

/// `object`, which has neither signatures nor what stands outside them, as canonical JSON with `server`'s signature.
///
/// # Panics
///
/// If it does not become a JSON object with a canonical form.
pub fn to_signed_json<T: Serialize>(object: &T, server: &ServerName, key: &SigningKey) -> Vec<u8> {
    let json = serde_json::to_vec(object).expect("a struct of texts and numbers is always JSON");
    let covered = crate::canonicalise(&json).expect("what serde_json wrote is well-formed");
    let mut signatures = b"{".to_vec();
    push_string(&mut signatures, server.as_str());
    signatures.extend_from_slice(b":{");
    push_string(&mut signatures, key.id().as_str());
    signatures.push(b':');
    push_string(&mut signatures, &key.sign(&covered).to_base64());
    signatures.extend_from_slice(b"}}");
    with_member(&covered, "signatures", &signatures)
}

fn canonical_bytes(object: &Map<String, Value>) -> Vec<u8> {
    let json = serde_json::to_vec(object).expect("a map with text for names is always JSON");
    // Only nesting too deep for every verifier has no canonical form here.
    crate::canonicalise(&json).map(Cow::into_owned).unwrap_or(json)
}

/// `signatures` with one more; what is not of the form that signatures have gives way.
fn with_signature(
    signatures: Option<Value>,
    server: &ServerName,
    key_id: &KeyId,
    signature: String,
) -> Value {
    let mut servers = into_object(signatures);
    let mut keys = into_object(servers.remove(server.as_str()));
    keys.insert(key_id.as_str().to_owned(), signature.into());
    servers.insert(server.as_str().to_owned(), keys.into());
    servers.into()
}

fn into_object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// Checks the signature that `server` made over the object `json` with the key `key_id`.
///
/// Works over the received bytes, so that number lexemes are those that were signed.
pub fn verify_json(
    json: &[u8],
    server: &ServerName,
    key_id: &KeyId,
    key: &PublicKey,
) -> Result<(), SignedJsonError> {
    SignedObject::parse(json)?.verify(server, key_id, key)
}

/// A signed object, taken apart once for any number of signatures.
pub(crate) struct SignedObject {
    /// What every signature covers.
    message: Vec<u8>,
    /// The value of `signatures`, canonical; empty when there is none.
    signatures: Vec<u8>,
}

impl SignedObject {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, CanonicalJsonError> {
        let canonical = crate::canonicalise(json)?;
        let mut signed = Self { message: Vec::new(), signatures: Vec::new() };
        let mut covered = Vec::new();
        for member in crate::members(&canonical)? {
            match member.name.as_ref() {
                "signatures" => signed.signatures = member.value.to_owned(),
                "unsigned" => {}
                _ => covered.push(member.raw),
            }
        }
        signed.message = object_of(covered);
        Ok(signed)
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    pub(crate) fn verify(
        &self,
        server: &ServerName,
        key_id: &KeyId,
        key: &PublicKey,
    ) -> Result<(), SignedJsonError> {
        let signature = self.signature(server, key_id).ok_or_else(|| SignedJsonError::Missing {
            server: server.clone(),
            key_id: key_id.clone(),
        })?;
        let signature = Signature::from_base64(&signature).map_err(|_| BadSignature)?;
        Ok(key.verify(&self.message, &signature)?)
    }

    fn signature(&self, server: &ServerName, key_id: &KeyId) -> Option<String> {
        signature_in(&self.signatures, server, key_id)
    }
}

/// The signature of `server` with the key `key_id` that the object `json` carries.
pub(crate) fn signature_of(json: &[u8], server: &ServerName, key_id: &KeyId) -> Option<String> {
    signature_in(member_value(json, "signatures")?, server, key_id)
}

fn signature_in(signatures: &[u8], server: &ServerName, key_id: &KeyId) -> Option<String> {
    let of_server = member_value(signatures, server.as_str())?;
    let by_key = member_value(of_server, key_id.as_str())?;
    serde_json::from_slice(by_key).ok()
}

pub(crate) fn member_value<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let members = crate::members(object).ok()?;
    members.into_iter().find(|member| member.name == name).map(|member| member.value)
}

/// The canonical `object` with one more member, in place of one of the same name; what is no object gives way.
pub(crate) fn with_member(object: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(name.len() + value.len() + 3);
    push_string(&mut raw, name);
    raw.push(b':');
    raw.extend_from_slice(value);
    let members = crate::members(object).unwrap_or_default();
    let mut members: BTreeMap<&str, &[u8]> =
        members.iter().map(|member| (member.name.as_ref(), member.raw)).collect();
    members.insert(name, &raw);
    object_of(members.into_values())
}

/// The object that has these members (each its name, a colon and its value) in this order.
pub(crate) fn object_of<'a>(members: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut object = vec![b'{'];
    for (position, member) in members.into_iter().enumerate() {
        if position > 0 {
            object.push(b',');
        }
        object.extend_from_slice(member);
    }
    object.push(b'}');
    object
}
