//! The receipt: a relay's signed word that it holds a transaction, in the answer to the deposit.

use bytes::Bytes;
use restante_federation_proto::{
    KeyId, PublicKey, ServerName, SigningKey, Timestamp, members, to_signed_json, verify_json,
};
use serde::{Deserialize, Serialize};

use crate::endpoints::RECEIPT_MEMBER;
use crate::hex::hex;
use crate::limits::RECEIPT_BYTES_MAX;

/// What a relay says of a transaction that it holds, in its answer to a deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Who holds it.
    pub relay: ServerName,
    /// Who sent it: the proof's origin.
    pub origin: ServerName,
    /// Whom it is for.
    pub destination: ServerName,
    /// The transaction's id.
    pub txn_id: String,
    /// SHA-256 of the transaction's canonical content, lower-case hex.
    pub content_sha256: String,
    /// Since when it holds it; of what is left again, since the first time.
    pub received_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Why a receipt does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not of the form.
    #[error("malformed receipt")]
    Malformed,
    /// Speaks of another relay or transaction.
    #[error("the receipt belongs to another transaction, or another relay")]
    OtherTransaction,
    /// No signature of the relay verifies.
    #[error("the receipt's signature does not verify")]
    Signature,
}

/// The transaction that a receipt must speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipted<'a> {
    /// Who sent it.
    pub origin: &'a ServerName,
    /// Whom it is for.
    pub destination: &'a ServerName,
    /// Its id.
    pub txn_id: &'a str,
    /// SHA-256 of its canonical content.
    pub content_sha256: &'a [u8; 32],
}

impl Receipt {
    /// The receipt, signed by the relay's key, as canonical JSON.
    pub fn signed(&self, key: &SigningKey) -> Vec<u8> {
        to_signed_json(self, &self.relay, key)
    }

    /// The ids of the keys that `relay` claims to have signed with.
    pub fn key_ids(json: &[u8], relay: &ServerName) -> Vec<KeyId> {
        crate::signatures::key_ids(json, relay)
    }

    /// Reads a receipt and checks that it speaks of this transaction and that `relay` signed it with `key`.
    pub fn verify(
        json: &[u8],
        relay: &ServerName,
        of: &Receipted<'_>,
        (key_id, key): (&KeyId, &PublicKey),
    ) -> Result<Self, ReceiptError> {
        if json.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::Malformed);
        }
        let receipt: Self = serde_json::from_slice(json).map_err(|_| ReceiptError::Malformed)?;
        if receipt.relay != *relay
            || receipt.origin != *of.origin
            || receipt.destination != *of.destination
            || receipt.txn_id != of.txn_id
            || receipt.content_sha256 != hex(of.content_sha256)
        {
            return Err(ReceiptError::OtherTransaction);
        }
        verify_json(json, relay, key_id, key).map_err(|_| ReceiptError::Signature)?;
        Ok(receipt)
    }

    /// The body of the answer to a deposit, with a signed receipt.
    pub fn to_answer(signed: &[u8]) -> Bytes {
        let parts = [b"{\"".as_slice(), RECEIPT_MEMBER.as_bytes(), b"\":", signed, b"}"];
        parts.concat().into()
    }

    /// The signed receipt in the answer to a deposit; `None` where there is none, as in Dendrite's `null`.
    pub fn in_answer(body: &[u8]) -> Option<Bytes> {
        let all = members(body).ok()?;
        let member = all.into_iter().find(|member| member.name == RECEIPT_MEMBER)?;
        (member.value != b"null").then(|| Bytes::copy_from_slice(member.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed("ed25519:1".parse().unwrap(), &[7; 32])
    }

    fn receipt() -> Receipt {
        Receipt {
            relay: "r.test".parse().unwrap(),
            origin: "a.test".parse().unwrap(),
            destination: "b.test".parse().unwrap(),
            txn_id: "17".to_owned(),
            content_sha256: hex(&[1; 32]),
            received_at: Timestamp::from_millis(5),
            expires_at: Timestamp::from_millis(9),
        }
    }

    fn verify(json: &[u8], relay: &str, txn_id: &str) -> Result<Receipt, ReceiptError> {
        let (receipt, key) = (receipt(), key());
        let of = Receipted {
            origin: &receipt.origin,
            destination: &receipt.destination,
            txn_id,
            content_sha256: &[1; 32],
        };
        let relay = relay.parse().unwrap();
        Receipt::verify(json, &relay, &of, (key.id(), &key.public_key()))
    }

    #[test]
    fn a_receipt_counts_for_its_own_relay_and_transaction_alone() {
        let signed = receipt().signed(&key());
        assert_eq!(verify(&signed, "r.test", "17"), Ok(receipt()));
        assert_eq!(verify(&signed, "other.test", "17"), Err(ReceiptError::OtherTransaction));
        assert_eq!(verify(&signed, "r.test", "18"), Err(ReceiptError::OtherTransaction));
        let text = String::from_utf8(signed).unwrap();
        let later = text.replace("\"expires_at\":9", "\"expires_at\":8");
        assert_eq!(verify(later.as_bytes(), "r.test", "17"), Err(ReceiptError::Signature));
        assert_eq!(verify(b"null", "r.test", "17"), Err(ReceiptError::Malformed));
    }

    #[test]
    fn an_answer_without_a_receipt_is_an_answer() {
        let signed = receipt().signed(&key());
        assert_eq!(Receipt::in_answer(&Receipt::to_answer(&signed)).unwrap(), signed);
        for body in ["", "null", "{}", r#"{"org.restante.receipt":null}"#, "<html>"] {
            assert_eq!(Receipt::in_answer(body.as_bytes()), None, "{body}");
        }
    }
}
