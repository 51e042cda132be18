//! The digest by which a recipient names mail that it has, to relays that need not hold it.

use restante_federation_proto::ServerName;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::hex::{hex, parse_hex};

/// What tells mail from all other mail, without saying who sent it: who does not hold the mail learns nothing by it.
///
/// The first 16 bytes of SHA-256 over four parts one after the other: recipient, origin and transaction id, each behind its length
/// in bytes as a 64-bit number, the highest byte first; and the SHA-256 of the canonical content. On the wire 32 lower-case hex
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailDigest(pub [u8; 16]);

impl MailDigest {
    /// The digest of `recipient`'s mail of that origin, id and content.
    pub fn of(
        recipient: &ServerName,
        origin: &ServerName,
        txn_id: &str,
        content_sha256: &[u8; 32],
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [recipient.as_str(), origin.as_str(), txn_id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(content_sha256);
        let hash: [u8; 32] = hash.finalize().into();
        Self(*hash.first_chunk().expect("32 bytes begin with 16"))
    }
}

impl Serialize for MailDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for MailDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digest = parse_hex(&text).map(Self);
        digest.ok_or_else(|| D::Error::custom("a digest of mail has 32 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_the_contract_says() {
        let (b, a) = ("b.test".parse().unwrap(), "a.test".parse().unwrap());
        let digest = MailDigest::of(&b, &a, "17", &[1; 32]);
        let parts = [
            b"\0\0\0\0\0\0\0\x06b.test\0\0\0\0\0\0\0\x06a.test\0\0\0\0\0\0\0\x0217".as_slice(),
            &[1; 32],
        ];
        let hash: [u8; 32] = Sha256::digest(parts.concat()).into();
        assert_eq!(digest.0, hash[..16]);
        assert_ne!(MailDigest::of(&a, &b, "17", &[1; 32]), digest);

        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json.len(), 34);
        assert_eq!(serde_json::from_str::<MailDigest>(&json).unwrap(), digest);
        for malformed in ["\"\"", "\"AB\"", "1", "null"] {
            assert!(serde_json::from_str::<MailDigest>(malformed).is_err(), "{malformed}");
        }
    }
}
