//! The waybill: the origin node's signed note of a transaction's place in its stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use restante_federation_proto::{
    KeyId, PublicKey, ServerName, SigningKey, Timestamp, to_signed_json, verify_json,
};
use serde::{Deserialize, Serialize};

use crate::hex::hex;
use crate::limits::WAYBILL_BYTES_MAX;

/// A transaction's place: what `origin`'s node sends to `destination` is numbered from 1 in each stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waybill {
    /// Who sends.
    pub origin: ServerName,
    /// Whom it is for.
    pub destination: ServerName,
    /// Random per installation of a node: a node that lost its memory starts another stream.
    pub stream: String,
    /// The number, from 1, without holes; direct sends are numbered as well.
    pub seq: u64,
    /// SHA-256 of the transaction's canonical content, lower-case hex.
    pub content_sha256: String,
    /// SHA-256 of the capsule that goes with it, lower-case hex.
    pub capsule_sha256: Option<String>,
    /// When the node first left or sent it.
    pub deposited_at: Timestamp,
}

/// Why a waybill does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaybillError {
    /// Not of the form.
    #[error("malformed waybill")]
    Malformed,
    /// Speaks of another origin, destination or content.
    #[error("the waybill belongs to another transaction")]
    OtherTransaction,
    /// No signature of the origin verifies.
    #[error("the waybill's signature does not verify")]
    Signature,
}

/// Bytes of a stream's name.
const STREAM_BYTES_MAX: usize = 64;

impl Waybill {
    /// The waybill, signed by the origin's key, as canonical JSON.
    pub fn signed(&self, key: &SigningKey) -> Vec<u8> {
        to_signed_json(self, &self.origin, key)
    }

    /// Reads a waybill; says nothing about its signature.
    pub fn parse(json: &[u8]) -> Result<Self, WaybillError> {
        if json.len() > WAYBILL_BYTES_MAX {
            return Err(WaybillError::Malformed);
        }
        let waybill: Self = serde_json::from_slice(json).map_err(|_| WaybillError::Malformed)?;
        // SQLite and JSON readers keep whole numbers up to 2^53.
        let in_range = (1..1 << 53).contains(&waybill.seq);
        if !in_range || waybill.stream.is_empty() || waybill.stream.len() > STREAM_BYTES_MAX {
            return Err(WaybillError::Malformed);
        }
        Ok(waybill)
    }

    /// The ids of the keys that `origin` claims to have signed with.
    pub fn key_ids(json: &[u8], origin: &ServerName) -> Vec<KeyId> {
        crate::signatures::key_ids(json, origin)
    }

    /// Reads a waybill and checks that it speaks of this transaction and that `origin` signed it with `key`.
    pub fn verify(
        json: &[u8],
        origin: &ServerName,
        destination: &ServerName,
        content_sha256: &[u8; 32],
        (key_id, key): (&KeyId, &PublicKey),
    ) -> Result<Self, WaybillError> {
        let waybill = Self::parse(json)?;
        if waybill.origin != *origin
            || waybill.destination != *destination
            || waybill.content_sha256 != hex(content_sha256)
        {
            return Err(WaybillError::OtherTransaction);
        }
        verify_json(json, origin, key_id, key).map_err(|_| WaybillError::Signature)?;
        Ok(waybill)
    }

    /// A signed waybill's JSON as the value of [`crate::endpoints::WAYBILL_HEADER`].
    pub fn to_header(json: &[u8]) -> String {
        STANDARD_NO_PAD.encode(json)
    }

    /// The JSON in a header's value.
    pub fn from_header(value: &str) -> Result<Vec<u8>, WaybillError> {
        STANDARD_NO_PAD.decode(value).map_err(|_| WaybillError::Malformed)
    }
}
