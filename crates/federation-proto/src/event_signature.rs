//! Signatures on events: each covers the redacted PDU
//! (server-server API, "Validating hashes and signatures on received events").

use crate::redaction::redacted;
use crate::signed_json::signature_of;
use crate::{BadSignature, EventIdError, KeyId, PublicKey, RoomVersion, ServerName, Signature};

/// Why an event's signature does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventSignatureError {
    /// Not a PDU.
    #[error(transparent)]
    Pdu(#[from] EventIdError),
    /// The event carries no signature by that server and key.
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

/// Checks the signature that `server` made with the key `key_id` over the PDU `pdu` (its JSON as received) in a room
/// of `version`.
///
/// A redacted event verifies like the whole one: the content hash that it keeps is not checked here.
pub fn verify_event_signature(
    pdu: &[u8],
    version: RoomVersion,
    server: &ServerName,
    key_id: &KeyId,
    key: &PublicKey,
) -> Result<(), EventSignatureError> {
    let canonical = crate::canonicalise(pdu).map_err(EventIdError::from)?;
    let message = redacted(&canonical, version)?;
    let signature = signature_of(&canonical, server, key_id).ok_or_else(|| {
        EventSignatureError::Missing { server: server.clone(), key_id: key_id.clone() }
    })?;
    let signature = Signature::from_base64(&signature).map_err(|_| BadSignature)?;
    Ok(key.verify(&message, &signature)?)
}
