//! The proof: the origin's own signed `/send`, carried along so that nobody between need be trusted.

use http::Method;
use restante_federation_proto::{
    BadSignature, KeyId, PublicKey, RequestTarget, ServerName, SignableRequest, Signature, XMatrix,
    unescape_path_segment,
};
use serde::{Deserialize, Serialize};

use crate::Content;
use crate::endpoints::SEND;
use crate::limits::TXN_ID_BYTES_MAX;

/// The request line's target and the `Authorization` header of the origin's own `/send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The target, byte for byte.
    pub uri: String,
    /// The X-Matrix header, byte for byte.
    pub authorization: String,
}

/// Why a proof is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The member is not an object with the strings `uri` and `authorization`.
    #[error("the proof must be an object with the strings uri and authorization")]
    Malformed,
    /// The URI is not exactly a homeserver's `/send`.
    #[error("the proof's uri must be exactly {SEND}{{txnId}}, without a query")]
    Uri,
    /// The authorization is not X-Matrix.
    #[error("the proof's authorization is not a valid X-Matrix header: {0}")]
    Authorization(String),
    /// The authorization names no destination.
    #[error("the proof's authorization names no destination")]
    NoDestination,
    /// The proof is another server's mail.
    #[error("the proof is for {0}, not for this mailbox")]
    OtherDestination(ServerName),
    /// The proof is of another transaction.
    #[error("the proof is of another transaction id")]
    OtherTransaction,
    /// The content names another origin.
    #[error("the content names another origin than the proof")]
    OtherOrigin,
    /// The signature is wrong: the content, the id or the destination was changed, or another key signed.
    #[error("the proof's signature does not verify over this content")]
    Signature,
}

impl Proof {
    /// Reads the member's value; members that are not known are ignored.
    pub fn parse(json: &[u8]) -> Result<Self, ProofError> {
        serde_json::from_slice(json).map_err(|_| ProofError::Malformed)
    }

    /// What the proof claims: everything that can be checked without a key.
    pub fn claim(&self) -> Result<ProofClaim, ProofError> {
        let target: RequestTarget = self.uri.parse().map_err(|_| ProofError::Uri)?;
        let segment = self.uri.strip_prefix(SEND).ok_or(ProofError::Uri)?;
        if segment.is_empty() || segment.contains(['/', '?', '#']) {
            return Err(ProofError::Uri);
        }
        let txn_id = unescape_path_segment(segment).ok_or(ProofError::Uri)?;
        if txn_id.len() > TXN_ID_BYTES_MAX {
            return Err(ProofError::Uri);
        }
        let header: XMatrix = self
            .authorization
            .parse()
            .map_err(|error| ProofError::Authorization(format!("{error}")))?;
        let destination = header.destination.ok_or(ProofError::NoDestination)?;
        Ok(ProofClaim {
            target,
            txn_id,
            origin: header.origin,
            destination,
            key_id: header.key_id,
            signature: header.signature,
        })
    }
}

/// What a proof says, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofClaim {
    target: RequestTarget,
    txn_id: String,
    origin: ServerName,
    destination: ServerName,
    key_id: KeyId,
    signature: Signature,
}

impl ProofClaim {
    /// The server that signed, if the proof verifies.
    pub fn origin(&self) -> &ServerName {
        &self.origin
    }

    /// Whom it is for.
    pub fn destination(&self) -> &ServerName {
        &self.destination
    }

    /// The transaction's id.
    pub fn txn_id(&self) -> &str {
        &self.txn_id
    }

    /// The key that it is signed with.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The target to replay it to, byte for byte.
    pub fn target(&self) -> &RequestTarget {
        &self.target
    }

    /// Checks that the proof belongs into `recipient`'s mailbox under `txn_id`, with content that names no other origin.
    pub fn check_fit(
        &self,
        recipient: &ServerName,
        txn_id: &str,
        content: &Content,
    ) -> Result<(), ProofError> {
        if self.destination != *recipient {
            return Err(ProofError::OtherDestination(self.destination.clone()));
        }
        if self.txn_id != txn_id {
            return Err(ProofError::OtherTransaction);
        }
        if content.origin().is_some_and(|origin| *origin != self.origin) {
            return Err(ProofError::OtherOrigin);
        }
        Ok(())
    }

    /// Checks the origin's signature over the whole transaction.
    pub fn verify(&self, content: &Content, key: &PublicKey) -> Result<(), ProofError> {
        let request = SignableRequest {
            method: Method::PUT.as_str(),
            target: &self.target,
            origin: &self.origin,
            destination: Some(&self.destination),
            content: Some(content.canonical()),
        };
        request.verify(key, &self.signature).map_err(|BadSignature| ProofError::Signature)
    }
}
