//! The capsule: events that the homeserver itself never sent to a destination, and the keys of who wrote them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use restante_federation_proto::{
    CanonicalJsonError, KEY_DOCUMENT_BYTES_MAX, ServerName, canonicalise,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::limits::{CAPSULE_BYTES_MAX, CAPSULE_KEYS_MAX, CAPSULE_PDUS_MAX, PDU_BYTES_MAX};

/// Events, oldest first: ancestors of a transaction's PDUs that are not known to be at the destination, whoever sent
/// them, and the key documents of their senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capsule {
    pdus: Vec<Bytes>,
    keys: BTreeMap<ServerName, Bytes>,
    canonical: Bytes,
    sha256: [u8; 32],
}

/// Why something is no capsule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// Not of the form.
    #[error("a capsule is an object with a list of pdus and the key documents of their senders")]
    Malformed,
    /// It has no canonical form.
    #[error(transparent)]
    Json(#[from] CanonicalJsonError),
    /// It holds too much.
    #[error(
        "a capsule holds at most {CAPSULE_PDUS_MAX} events and {CAPSULE_KEYS_MAX} key documents in {CAPSULE_BYTES_MAX} bytes"
    )]
    TooLarge,
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    pdus: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    keys: BTreeMap<ServerName, &'a RawValue>,
}

impl Capsule {
    /// The capsule with these events, oldest first, and these key documents.
    pub fn new<'a>(
        pdus: &[Bytes],
        keys: impl IntoIterator<Item = (&'a ServerName, &'a Bytes)>,
    ) -> Result<Self, CapsuleError> {
        let mut json = b"{\"keys\":{".to_vec();
        for (index, (server, document)) in keys.into_iter().enumerate() {
            separate(&mut json, index);
            let server = serde_json::to_vec(server).expect("a server name is always a JSON string");
            json.extend_from_slice(&server);
            json.push(b':');
            json.extend_from_slice(document);
        }
        json.extend_from_slice(b"},\"pdus\":[");
        for (index, pdu) in pdus.iter().enumerate() {
            separate(&mut json, index);
            json.extend_from_slice(pdu);
        }
        json.extend_from_slice(b"]}");
        Self::parse(&json)
    }

    /// Reads a capsule. Says nothing about signatures: neither the waybill's over it nor those of its events.
    pub fn parse(json: &[u8]) -> Result<Self, CapsuleError> {
        if json.len() > CAPSULE_BYTES_MAX {
            return Err(CapsuleError::TooLarge);
        }
        let canonical: Bytes = match canonicalise(json)? {
            Cow::Borrowed(json) => Bytes::copy_from_slice(json),
            Cow::Owned(rebuilt) => rebuilt.into(),
        };
        let shape: Shape<'_> =
            serde_json::from_slice(&canonical).map_err(|_| CapsuleError::Malformed)?;
        let slice = |raw: &RawValue| canonical.slice_ref(raw.get().as_bytes());
        let pdus: Vec<Bytes> = shape.pdus.into_iter().map(slice).collect();
        let keys: BTreeMap<ServerName, Bytes> =
            shape.keys.into_iter().map(|(server, document)| (server, slice(document))).collect();
        let objects = pdus.iter().chain(keys.values()).all(|object| object.starts_with(b"{"));
        if !objects {
            return Err(CapsuleError::Malformed);
        }
        let fits = pdus.len() <= CAPSULE_PDUS_MAX
            && keys.len() <= CAPSULE_KEYS_MAX
            && canonical.len() <= CAPSULE_BYTES_MAX
            && pdus.iter().all(|pdu| pdu.len() <= PDU_BYTES_MAX)
            && keys.values().all(|document| document.len() <= KEY_DOCUMENT_BYTES_MAX);
        if !fits {
            return Err(CapsuleError::TooLarge);
        }
        let sha256 = Sha256::digest(&canonical).into();
        Ok(Self { pdus, keys, canonical, sha256 })
    }

    /// The events, oldest first.
    pub fn pdus(&self) -> &[Bytes] {
        &self.pdus
    }

    /// Key documents of the events' senders.
    pub fn keys(&self) -> &BTreeMap<ServerName, Bytes> {
        &self.keys
    }

    /// The canonical form.
    pub fn canonical(&self) -> &Bytes {
        &self.canonical
    }

    /// SHA-256 of the canonical form: what the waybill vouches for.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

fn separate(json: &mut Vec<u8>, index: usize) {
    if index > 0 {
        json.push(b',');
    }
}
