//! The upkeep trait: what an operator may do with a store as a whole.

use std::path::Path;

use async_trait::async_trait;
use restante_federation_proto::Timestamp;

use crate::StoreError;

/// What all mailboxes hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Mailboxes, empty ones too.
    pub mailboxes: u64,
    /// Those of them that are there for nothing but mail to be delivered onward: nothing else was left in them, and their server never
    /// registered.
    pub onward_mailboxes: u64,
    /// Servers that are registered.
    pub registrations: u64,
    /// Envelopes, those set aside not counted.
    pub envelopes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Envelopes that were set aside.
    pub quarantined: u64,
    /// The keys with which bodies are sealed, in the order in which they came into use.
    pub keys: Vec<KeyUse>,
}

/// How much is sealed with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Its id in the key file.
    pub id: String,
    /// Envelopes sealed with it, those set aside not counted. A key with none may leave the key file, unless it is the first.
    pub envelopes: u64,
}

/// What one step of sealing anew did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resealed {
    /// Envelopes that were looked at.
    pub looked_at: u64,
    /// Envelopes that are sealed as the key file says, and were not before.
    pub resealed: u64,
    /// Envelopes that were found damaged and are quarantined.
    pub quarantined: u64,
    /// Envelopes on damaged pages or beside them, which can't be written: they stay sealed as they are.
    pub left: u64,
}

/// A copy of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Its size.
    pub bytes: u64,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something has that name.
    #[error("{path} exists already; choose another name for the backup")]
    Exists {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The file can't be written.
    #[error(
        "cannot write the backup {path}; check that the folder exists, that this user may write there, and that it has room"
    )]
    Unwritable {
        /// The file.
        path: std::path::PathBuf,
        /// What SQLite or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One backup at a time.
    #[error("a backup is being written already; wait for it to end")]
    UnderWay,
    /// The store keeps nothing that could be copied.
    #[error("this relay keeps its mail in memory; there is nothing to back up")]
    InMemory,
}

/// The operator's hand on the store.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// What all mailboxes hold; costs the same however much that is.
    async fn totals(&self) -> Result<Totals, StoreError>;

    /// Copies everything, as it stands at one moment, into a new file that only its owner can read; the store goes on
    /// meanwhile. A file of that name is complete and durable.
    async fn backup(&self, path: &Path) -> Result<Backup, BackupError>;

    /// Seals envelopes as the key file says that are sealed with another of its keys, or not at all. Looks at no more than
    /// `batch_max`, in turn; a step that looked at none ends a round, in which every envelope had its turn. What is damaged is
    /// quarantined, or left where even that can't be written (promise 10), and stops nothing else.
    async fn reseal(&self, batch_max: usize) -> Result<Resealed, StoreError>;

    /// What [`Upkeep::note_expired_to`] noted last; `None` if nobody did.
    async fn expired_to(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Notes the time by which mail has expired, so that a clock that has jumped by the next start shows.
    async fn note_expired_to(&self, time: Timestamp) -> Result<(), StoreError>;
}
