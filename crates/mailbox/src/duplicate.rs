//! The key by which the same mail, left twice, is known.

use restante_federation_proto::ServerName;
use sha2::{Digest, Sha256};

use crate::{ContentHash, Deposit};

/// Bytes of a key. To make a later envelope of somebody else look like a duplicate takes a second
/// preimage, so that 128 bits suffice, and the index stays small.
const KEY_BYTES: usize = 16;

/// Stands for recipient, origin, txn id and content hash together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DuplicateKey(pub(crate) [u8; KEY_BYTES]);

impl DuplicateKey {
    pub(crate) fn of(deposit: &Deposit) -> Self {
        let Deposit { recipient, origin, txn_id, content_hash, .. } = deposit;
        Self::of_parts(recipient, origin, txn_id, content_hash)
    }

    pub(crate) fn of_parts(
        recipient: &ServerName,
        origin: &ServerName,
        txn_id: &str,
        content_hash: &ContentHash,
    ) -> Self {
        let mut hash = Sha256::new();
        for field in [recipient.as_str(), origin.as_str(), txn_id] {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.update(content_hash.0);
        let hash: [u8; 32] = hash.finalize().into();
        Self(*hash.first_chunk().expect("32 bytes begin with 16"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use restante_federation_proto::Timestamp;

    use super::*;
    use crate::Onward;

    fn deposit() -> Deposit {
        Deposit {
            recipient: "b.example".parse().unwrap(),
            origin: "a.example".parse().unwrap(),
            txn_id: "1".into(),
            content_hash: ContentHash([7; 32]),
            content: Bytes::from_static(b"{}"),
            members: Bytes::new(),
            deposited_at: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH,
            onward: Onward::No,
        }
    }

    #[test]
    fn members_and_time_do_not_tell_mail_apart() {
        let other = Deposit {
            members: Bytes::from_static(b"{}"),
            deposited_at: Timestamp::from_millis(1),
            ..deposit()
        };

        assert_eq!(DuplicateKey::of(&deposit()), DuplicateKey::of(&other));
    }

    #[test]
    fn recipient_origin_txn_id_and_content_hash_tell_mail_apart() {
        let others = [
            Deposit { recipient: "c.example".parse().unwrap(), ..deposit() },
            Deposit { origin: "c.example".parse().unwrap(), ..deposit() },
            Deposit { origin: "a.example1".parse().unwrap(), txn_id: String::new(), ..deposit() },
            Deposit { txn_id: "2".into(), ..deposit() },
            Deposit { content_hash: ContentHash([8; 32]), ..deposit() },
        ];

        for other in others {
            assert_ne!(DuplicateKey::of(&deposit()), DuplicateKey::of(&other));
        }
    }
}
