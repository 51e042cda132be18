//! Key documents: what `/_matrix/key/v2/server` answers
//! (server-server API, "Retrieving server keys").

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::signed_json::{SignedObject, member_value, sign_json, with_member};
use crate::{KeyId, PublicKey, ServerName, SigningKey, Timestamp};

/// Largest document that is read, in bytes: a document of two keys has 500, and retired keys add 100 each.
pub const KEY_DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Most verify keys that a document may list: servers use one or two, and every one costs a signature check.
pub const VERIFY_KEYS_MAX: usize = 16;

/// A key document whose self-signatures verify: it proves that whoever made it holds these keys,
/// and nothing about the name (see [`crate::Evidence`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDocument {
    raw: Bytes,
    server_name: ServerName,
    verify_keys: BTreeMap<KeyId, PublicKey>,
    old_verify_keys: BTreeMap<KeyId, (PublicKey, Timestamp)>,
    valid_until: Timestamp,
}

/// Why bytes are no key document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyDocumentError {
    /// Not JSON of the right shape.
    #[error("malformed key document: {0}")]
    Malformed(String),
    /// A verify key did not sign the document.
    #[error("the key document is not signed by its own key {0}")]
    NotSelfSigned(KeyId),
    /// It lists no key of a kind known here.
    #[error("the key document lists no ed25519 key")]
    NoKeys,
}

#[derive(Deserialize)]
struct Wire {
    server_name: ServerName,
    verify_keys: BTreeMap<String, WireKey>,
    #[serde(default)]
    old_verify_keys: BTreeMap<String, WireOldKey>,
    valid_until_ts: Timestamp,
}

#[derive(Deserialize)]
struct WireKey {
    key: String,
}

#[derive(Deserialize)]
struct WireOldKey {
    key: String,
    expired_ts: Timestamp,
}

impl KeyDocument {
    /// Parses a document and checks the signature of every one of its `verify_keys`.
    ///
    /// Keys of a kind unknown here are left out, and so are retired keys that do not decode.
    pub fn parse(raw: Bytes) -> Result<Self, KeyDocumentError> {
        if raw.len() > KEY_DOCUMENT_BYTES_MAX {
            return Err(malformed(format!("more than {KEY_DOCUMENT_BYTES_MAX} bytes")));
        }
        // Refuses duplicate members before serde_json would pick one of them.
        let signed = SignedObject::parse(&raw).map_err(malformed)?;
        let wire: Wire = serde_json::from_slice(&raw).map_err(malformed)?;
        let verify_keys = verify_keys(wire.verify_keys)?;
        for (key_id, key) in &verify_keys {
            signed
                .verify(&wire.server_name, key_id, key)
                .map_err(|_| KeyDocumentError::NotSelfSigned(key_id.clone()))?;
        }
        Ok(Self {
            raw,
            server_name: wire.server_name,
            verify_keys,
            old_verify_keys: old_verify_keys(wire.old_verify_keys),
            valid_until: wire.valid_until_ts,
        })
    }

    /// The document as received, with every signature it came with.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The server it speaks of.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// Keys for use until [`Self::valid_until`].
    pub fn verify_keys(&self) -> &BTreeMap<KeyId, PublicKey> {
        &self.verify_keys
    }

    /// Retired keys, each with the time until which it was used.
    pub fn old_verify_keys(&self) -> &BTreeMap<KeyId, (PublicKey, Timestamp)> {
        &self.old_verify_keys
    }

    /// Until when the verify keys may be used for requests.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }

    /// The verify key `key_id` if the document is valid at `now`.
    pub fn key_valid_at(&self, key_id: &KeyId, now: Timestamp) -> Option<&PublicKey> {
        self.verify_keys.get(key_id).filter(|_| now <= self.valid_until)
    }

    /// Whether `notary`'s signature with `key` stands on the document as well.
    pub fn is_signed_by(&self, notary: &ServerName, key_id: &KeyId, key: &PublicKey) -> bool {
        crate::verify_json(&self.raw, notary, key_id, key).is_ok()
    }

    /// The document with `notary`'s signature added, as a notary serves it.
    pub fn countersigned(&self, notary: &ServerName, key: &SigningKey) -> Bytes {
        let signed = SignedObject::parse(&self.raw).expect(PARSED);
        let signature = format!("\"{}\"", key.sign(signed.message()).to_base64());
        let canonical = crate::canonicalise(&self.raw).expect(PARSED);
        // Over bytes: what others signed may hold numbers that no `Value` can.
        let signatures = member_value(&canonical, "signatures").unwrap_or_default();
        let by_notary = member_value(signatures, notary.as_str()).unwrap_or_default();
        let by_notary = with_member(by_notary, key.id().as_str(), signature.as_bytes());
        let signatures = with_member(signatures, notary.as_str(), &by_notary);
        with_member(&canonical, "signatures", &signatures).into()
    }
}

/// Why taking a [`KeyDocument`] apart cannot fail.
const PARSED: &str = "the document was taken apart when it was made";

pub(crate) fn malformed(reason: impl ToString) -> KeyDocumentError {
    KeyDocumentError::Malformed(reason.to_string())
}

fn verify_keys(
    wire: BTreeMap<String, WireKey>,
) -> Result<BTreeMap<KeyId, PublicKey>, KeyDocumentError> {
    if wire.len() > VERIFY_KEYS_MAX {
        return Err(malformed(format!("more than {VERIFY_KEYS_MAX} verify keys")));
    }
    let mut keys = BTreeMap::new();
    for (key_id, WireKey { key }) in wire {
        let Ok(key_id) = key_id.parse::<KeyId>() else { continue };
        keys.insert(key_id, PublicKey::from_base64(&key).map_err(malformed)?);
    }
    if keys.is_empty() { Err(KeyDocumentError::NoKeys) } else { Ok(keys) }
}

fn old_verify_keys(wire: BTreeMap<String, WireOldKey>) -> BTreeMap<KeyId, (PublicKey, Timestamp)> {
    wire.into_iter()
        .filter_map(|(key_id, old)| {
            let key = PublicKey::from_base64(&old.key).ok()?;
            Some((key_id.parse().ok()?, (key, old.expired_ts)))
        })
        .collect()
}

/// Makes `server`'s own key document: its key, `old_verify_keys` (kept as they are in `predecessor`, the document
/// that the homeserver itself serves, if that is known), valid until `valid_until`.
///
/// Verify keys of `predecessor` other than `key` are left out; [`mint_signed_by`] takes them if they are at hand.
pub fn mint(
    server: &ServerName,
    key: &SigningKey,
    predecessor: Option<&KeyDocument>,
    valid_until: Timestamp,
) -> KeyDocument {
    let retired = predecessor.map(|document| document.old_verify_keys.clone());
    mint_signed_by(server, &[key], retired.unwrap_or_default(), valid_until)
}

/// Makes `server`'s own key document, valid until `valid_until`. It lists `keys` and bears the signature of each, so
/// that whoever believes one of them comes to believe the others; of `retired`, those that are not among `keys`.
pub fn mint_signed_by(
    server: &ServerName,
    keys: &[&SigningKey],
    retired: BTreeMap<KeyId, (PublicKey, Timestamp)>,
    valid_until: Timestamp,
) -> KeyDocument {
    let verify_keys: BTreeMap<KeyId, PublicKey> =
        keys.iter().map(|key| (key.id().clone(), key.public_key())).collect();
    let mut old_verify_keys = retired;
    old_verify_keys.retain(|key_id, _| !verify_keys.contains_key(key_id));
    let listed: Map<String, Value> = verify_keys
        .iter()
        .map(|(key_id, key)| (key_id.to_string(), json!({ "key": key.to_base64() })))
        .collect();
    let old: Map<String, Value> = old_verify_keys
        .iter()
        .map(|(key_id, (key, expired))| {
            (key_id.to_string(), json!({ "key": key.to_base64(), "expired_ts": expired }))
        })
        .collect();
    let mut document = Map::new();
    document.insert("server_name".to_owned(), json!(server));
    document.insert("verify_keys".to_owned(), listed.into());
    document.insert("old_verify_keys".to_owned(), old.into());
    document.insert("valid_until_ts".to_owned(), json!(valid_until));
    keys.iter().for_each(|key| sign_json(&mut document, server, key));
    KeyDocument {
        raw: Value::Object(document).to_string().into(),
        server_name: server.clone(),
        verify_keys,
        old_verify_keys,
        valid_until,
    }
}
