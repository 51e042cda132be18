//! The custody trait: what an operator may do with mailboxes.

use std::time::Duration;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use crate::{Collected, Deposit, EntryId, MailboxSummary, Onward, Page, StoreError};

/// Mail that comes due while its mailbox is held gets this much more, again and again: after the release its owner has
/// up to a day to collect it.
pub const HOLD_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether there is such a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is.
    Mailbox,
    /// There is none, and nothing was done.
    NoMailbox,
}

/// Which mail an operator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All that the mailbox has.
    All,
    /// One envelope.
    Envelope(EntryId),
    /// All from one origin.
    Origin(ServerName),
}

/// Whether an envelope is whole, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing else is known.
    Whole,
    /// It was found damaged.
    Quarantined,
}

/// An envelope without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeLine {
    /// Its number.
    pub id: EntryId,
    /// Who sent it, as stored: if it is damaged, this may be no server name.
    pub origin: String,
    /// The transaction's id.
    pub txn_id: String,
    /// When the relay took it.
    pub deposited_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Bytes of content and members, as received.
    pub bytes: u64,
    /// Whether it was set aside.
    pub condition: Condition,
    /// Whether the relay delivers it itself.
    pub onward: Onward,
}

/// What one origin has in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The origin.
    pub origin: ServerName,
    /// Its envelopes there, those set aside not counted.
    pub envelopes: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Envelopes that were stored.
    pub imported: u64,
    /// Envelopes that were there before, or were acknowledged before.
    pub duplicates: u64,
}

/// The operator's hand on single mailboxes. Each call is one atomic step, durable when it returns, unless it says otherwise.
#[async_trait]
pub trait Custody: Send + Sync + 'static {
    /// From here on the mailbox takes mail and hands none out; its owner may still acknowledge, and nothing expires.
    async fn hold(&self, recipient: &ServerName) -> Result<Found, StoreError>;

    /// Ends a hold. Whoever waits for mail has to be told.
    async fn release(&self, recipient: &ServerName) -> Result<Found, StoreError>;

    /// Removes mail, quarantined or not, counts it as lost, and forgets that it ever came. Goes in steps, so that others get their turn;
    /// each step is atomic, and stays done if a later one fails. What is damaged beyond removing stays as well. Mail that comes meanwhile stays.
    /// Tells how many envelopes went.
    async fn drop_mail(
        &self,
        recipient: &ServerName,
        selection: Selection,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// The envelopes of a mailbox with ids above `after`, quarantined ones too, in the order of their ids.
    async fn envelopes(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EnvelopeLine>, StoreError>;

    /// What each origin has in a mailbox, in the order of their names, those after `after`.
    async fn shares(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<Share>, StoreError>;

    /// One mailbox's line of the list.
    async fn summary(&self, recipient: &ServerName) -> Result<Option<MailboxSummary>, StoreError>;

    /// As [`MailboxStore::collect`](crate::MailboxStore::collect), from held mailboxes too.
    async fn export(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError>;

    /// Puts mail into its mailboxes with ids of its own, after what is there; in mailboxes that do not exist ids begin at random.
    /// Duplicates are skipped, quotas are not asked. All of it or nothing.
    async fn import(&self, mail: Vec<Deposit>) -> Result<Imported, StoreError>;
}
