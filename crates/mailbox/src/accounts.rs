//! The accounts trait: what became of mail by its name, and mail that its owner has from elsewhere.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use crate::{Acknowledged, ContentHash, DuplicateKey, StoreError};

/// Names of mail that a mailbox does not hold and its owner has, which are remembered for each mailbox: a day of a busy
/// server.
pub const NAMES_AHEAD_MAX: u64 = 10_000;

/// What tells mail from other mail in the mailbox of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailName {
    /// Who sent it.
    pub origin: ServerName,
    /// The transaction's id.
    pub txn_id: String,
    /// SHA-256 of the canonical content.
    pub content_hash: ContentHash,
}

/// What became of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// It waits for its recipient, be it in a mailbox that the operator holds.
    Held,
    /// Its recipient has it.
    Acknowledged,
    /// It never came, was lost, is past its time, or is quarantined.
    Unknown,
}

/// What a relay can say of mail without the content. Each call is one atomic step; what it reports is durable when it
/// returns.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// What became of mail, each given with its recipient, at `now`; one answer for each, in the same order. Acknowledged
    /// mail is known for as long as its duplicate key is remembered. Mail that never came is unknown, whatever its recipient
    /// says to have from elsewhere: that would tell of a registration. What is damaged is unknown, and hides nothing else.
    async fn whereabouts(
        &self,
        mail: &[(ServerName, MailName)],
        now: Timestamp,
    ) -> Result<Vec<Whereabouts>, StoreError>;

    /// Takes note that `recipient` has mail of these keys from elsewhere; keys of others' mail change nothing of theirs. What its
    /// mailbox holds of it is removed and remembered, as by an acknowledgement (promises 2 and 3); what is damaged stays, and
    /// hinders nothing else (promise 10). The rest is remembered in memory, so that a late copy is a duplicate: if `recipient` is registered, for two days at most, no more than
    /// [`NAMES_AHEAD_MAX`] for its mailbox, and a bounded number for all, of which the oldest makes room. What is not
    /// remembered costs its owner one more download. A copy that comes counts as deposited and acknowledged.
    async fn acknowledge_copies(
        &self,
        recipient: &ServerName,
        copies: &[DuplicateKey],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError>;
}
