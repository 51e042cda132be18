//! The store trait: what every backend promises. The conformance suite checks each line of it.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use crate::{ContentHash, Deposit, EntryId, Full, Loss, Quotas, StoredEnvelope};

/// Why the store did not do what it was asked. Nothing of it took effect, with one exception: what failed because the disk
/// did not confirm it may be found, whole, after the next start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk; temporary, an operator's to mend.
    #[error("the relay's disk is full")]
    DiskFull,
    /// Too many calls wait; temporary.
    #[error("the store is busy")]
    Busy,
    /// The store is closing or broken.
    #[error("the store is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What became of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deposited {
    /// It is durable under this id.
    Stored(EntryId),
    /// The same recipient, origin, txn id and content hash is held or was acknowledged before: nothing was stored.
    /// A quarantined envelope is not held in this sense: the same left again takes its place under an id of its own. Neither
    /// is one past its time in a mailbox that is not held: it expires first.
    Duplicate(Known),
    /// There is no room: nothing was stored, nothing removed. Also of mail that is held and was to be delivered onward only from this
    /// deposit on.
    Full(Full),
}

/// What is known of mail that is left again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is held.
    Held {
        /// When it was deposited.
        since: Timestamp,
        /// When it expires.
        until: Timestamp,
    },
    /// Its recipient has it.
    Acknowledged,
}

/// How much one collect may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Envelopes at most.
    pub envelopes_max: usize,
    /// Bytes of content and members at most; the first envelope comes whatever its size.
    pub bytes_max: usize,
}

/// One page of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Envelopes in the order of their deposit.
    pub envelopes: Vec<StoredEnvelope>,
    /// Ids that were found damaged on the way and are quarantined: kept, counted, and not returned again.
    pub quarantined: Vec<EntryId>,
}

/// One envelope that its owner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Its number in the owner's mailbox.
    pub id: EntryId,
    /// The content that the owner has; when given and different, nothing is removed.
    pub content_hash: Option<ContentHash>,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acknowledged {
    /// Envelopes that left the mailbox.
    pub removed: u64,
}

/// What a mailbox holds (quarantined envelopes are not counted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Envelopes.
    pub count: u64,
    /// Bytes of content and members as received.
    pub bytes: u64,
    /// When the first in their order was deposited.
    pub oldest_at: Option<Timestamp>,
}

/// What is past its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The time: envelopes whose `expires_at` lies before it are.
    pub now: Timestamp,
    /// Keys of acknowledged mail are if that was deposited before this.
    pub remembered_from: Timestamp,
}

/// What one call of `expire` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Envelopes past their time.
    pub envelopes: u64,
    /// Those of them that were kept for [`OF_THE_MOMENT`](crate::OF_THE_MOMENT): they are not counted as lost.
    pub of_the_moment: u64,
    /// Remembered duplicate keys past their time.
    pub remembered: u64,
    /// Envelopes past their time that a hold keeps: they were given [`HOLD_GRACE`](crate::HOLD_GRACE) more.
    pub prolonged: u64,
}

/// One line of the list of mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxSummary {
    /// Whose it is.
    pub recipient: ServerName,
    /// What waits.
    pub depth: Depth,
    /// Envelopes set aside because their checksum did not match.
    pub quarantined: u64,
    /// Envelopes that left by acknowledgement since the mailbox was created.
    pub acknowledged_total: u64,
    /// Envelopes that their recipient's homeserver took from this relay's own call, since the mailbox was created.
    pub delivered_total: u64,
    /// Envelopes that were left with a relay of their recipient's own, since the mailbox was created.
    pub passed_on_total: u64,
    /// Envelopes for onward delivery that their origin took back, since the mailbox was created.
    pub withdrawn_total: u64,
    /// Envelopes that left by expiry since the mailbox was created.
    pub expired_total: u64,
    /// Envelopes that left by an operator's command, or because their owner left, since the mailbox was created.
    pub dropped_total: u64,
    /// Whether the operator holds it.
    pub hold: Hold,
    /// Whether its owner has registered.
    pub registered: Registered,
}

/// Whether a mailbox hands mail out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// To its owner.
    #[default]
    Released,
    /// To nobody, until the operator releases it: mail goes in, and does not expire.
    Held,
}

/// Whether a mailbox belongs to a server that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registered {
    /// Mail came for a server that never registered, or left.
    #[default]
    No,
    /// It has a registration.
    Yes,
}

/// A relay's storage. Each call is one atomic step; what it reports is durable when it returns.
#[async_trait]
pub trait MailboxStore: Send + Sync + 'static {
    /// Stores an envelope, unless it is a duplicate or there is no room. Durable on return: body, proof,
    /// waybill and index in one fsynced commit (promise 1). Creates the mailbox, with a random id offset, when there is none.
    /// The duplicate key is recipient, origin, txn id and content hash; it is remembered after acknowledgement,
    /// and forgotten with expiry.
    ///
    /// What finds no room is counted as a loss of its mailbox, in the same step, if there is such a mailbox. So is the same
    /// mail that is past its time at `deposited_at` and expires to be stored anew.
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError>;

    /// The envelopes of `recipient` with ids above `after`, in the order of their deposit (promise 4); none while the
    /// mailbox is held. Changes nothing but to quarantine what is damaged (promise 10).
    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError>;

    /// Removes the named envelopes from `recipient`'s mailbox, and from no other (promises 2 and 3). Unknown ids are no error.
    /// An envelope quarantined after its owner had it is removed like any other.
    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError>;

    /// What waits for `recipient`; all zero for a mailbox that does not exist.
    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError>;

    /// Removes what is due: envelopes, quarantined ones too, which are counted as losses; and duplicate keys of acknowledged
    /// envelopes. At most `batch_max` of each, oldest first, so that the caller can go on in small steps until a step does
    /// nothing. Mail in a held mailbox stays.
    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError>;

    /// What `recipient` never got, by kind and origin; those of no origin, which sum up the rest, come first of each kind.
    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError>;

    /// What [`MailboxStore::depth`] and [`MailboxStore::losses`] say, of one moment.
    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError>;

    /// Forgets the losses of `recipient` whose `until` is not later than `until`: its owner knows of them. What is lost
    /// after [`MailboxStore::losses`] returned bears a later `until` than everything that it told.
    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError>;

    /// Mailboxes in the order of their names, those after `after`, at most `limit`.
    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError>;

    /// Proves that a durable write works now.
    async fn health(&self) -> Result<(), StoreError>;
}
