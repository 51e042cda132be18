//! The key by which the same mail, left twice, is known.

use restante_federation_proto::ServerName;
use sha2::{Digest, Sha256};

use crate::{ContentHash, Deposit, MailName};

/// Bytes of a key. To make a later envelope of somebody else look like a duplicate takes a second
/// preimage, so that 128 bits suffice, and the index stays small.
const KEY_BYTES: usize = 16;

/// A key that is remembered ahead of its mail: the hash of the mailbox's owner, and the key.
pub(crate) type AheadKey = [u8; 2 * KEY_BYTES];

/// The part of such a key that stands for the mailbox's owner.
pub(crate) type OwnerKey = [u8; KEY_BYTES];

/// Whose mail that key stands for.
pub(crate) fn owner_of(key: &AheadKey) -> OwnerKey {
    *key.first_chunk().expect("32 bytes begin with 16")
}

/// Stands for recipient, origin, txn id and content hash together: the first bytes of SHA-256 over the first three, each behind
/// its length as a 64-bit number, the highest byte first, and the last. Relays and nodes name mail so to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DuplicateKey(pub [u8; KEY_BYTES]);

impl DuplicateKey {
    pub(crate) fn of(deposit: &Deposit) -> Self {
        let Deposit { recipient, origin, txn_id, content_hash, .. } = deposit;
        Self::over([recipient.as_str(), origin.as_str(), txn_id], *content_hash)
    }

    /// The key of `recipient`'s mail of that name.
    pub fn named(recipient: &ServerName, name: &MailName) -> Self {
        let MailName { origin, txn_id, content_hash } = name;
        Self::over([recipient.as_str(), origin.as_str(), txn_id], *content_hash)
    }

    fn over(fields: [&str; 3], content_hash: ContentHash) -> Self {
        let mut hash = Sha256::new();
        for field in fields {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        hash.update(content_hash.0);
        let hash: [u8; 32] = hash.finalize().into();
        Self(*hash.first_chunk().expect("32 bytes begin with 16"))
    }

    /// The key as it is remembered ahead of the mail, beside all others of `recipient`'s.
    pub(crate) fn ahead_of(self, recipient: &ServerName) -> AheadKey {
        let mut ahead = [0; 2 * KEY_BYTES];
        let (owner, key) = ahead.split_at_mut(KEY_BYTES);
        owner.copy_from_slice(&Sha256::digest(recipient.as_str())[..KEY_BYTES]);
        key.copy_from_slice(&self.0);
        ahead
    }

    /// The lowest and the highest key that can be remembered ahead of `recipient`'s mail.
    pub(crate) fn all_ahead_of(recipient: &ServerName) -> (AheadKey, AheadKey) {
        let [first, last] = [[0; KEY_BYTES], [0xff; KEY_BYTES]];
        (Self(first).ahead_of(recipient), Self(last).ahead_of(recipient))
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
