//! The trait for mail that is to be delivered onward: what a relay that delivers itself asks of its store.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use crate::{ContentHash, EntryId, StoreError, StoredEnvelope};

/// How mail left that was delivered onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandedOn {
    /// Its recipient's homeserver took it.
    Delivered,
    /// It was left with a relay of its recipient's own.
    PassedOn,
}

/// Mail that its origin takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Whom it is for.
    pub recipient: ServerName,
    /// Its id.
    pub txn_id: String,
    /// Its content.
    pub content_hash: ContentHash,
}

/// Mail that waits to be delivered onward. It lies in mailboxes like all mail, and its recipient collects it like all mail. Each
/// call is one atomic step, durable when it returns.
#[async_trait]
pub trait OnwardMail: Send + Sync + 'static {
    /// Recipients for whom mail is to be delivered, in the order of their names, those after `after`. Those whose mailbox is held are
    /// not among them.
    async fn awaited_by(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError>;

    /// Origins whose mail is to be delivered to `recipient`, be it past its time, in the order of their names, those after `after`; none
    /// while the mailbox is held.
    async fn awaiting(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError>;

    /// What `origin` left first of what is to be delivered to `recipient` and is not past its time at `now`. What is damaged is
    /// quarantined on the way (promise 10).
    async fn first_onward(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
        now: Timestamp,
    ) -> Result<Option<StoredEnvelope>, StoreError>;

    /// Removes an envelope that was delivered, counts it by its way, and remembers its key as that of acknowledged mail. `false` if it was
    /// there no more.
    async fn hand_on(
        &self,
        recipient: &ServerName,
        id: EntryId,
        way: HandedOn,
    ) -> Result<bool, StoreError>;

    /// The recipient refused it: it stays until it is collected or expires, and is not delivered any more.
    async fn refuse_onward(&self, recipient: &ServerName, id: EntryId) -> Result<(), StoreError>;

    /// What `origin` takes back of its own mail that was to be delivered onward, refused or not. It is removed, counted and
    /// forgotten. Where the recipient is registered it stays for the recipient, and is only not delivered any more. Tells how many
    /// envelopes this concerned; all other mail is left alone.
    async fn withdraw(
        &self,
        origin: &ServerName,
        withdrawals: &[Withdrawal],
    ) -> Result<u64, StoreError>;
}
