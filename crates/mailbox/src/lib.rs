//! What a relay holds: mailboxes, their rules, the store trait and its backends.
//!
//! Knows no HTTP and reads no clock.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod duplicate;
mod envelope;
mod memory;
mod rules;
mod sqlite;
mod store;

pub use envelope::{ContentHash, Deposit, EntryId, StoredEnvelope};
pub use memory::MemoryStore;
pub use rules::{EnvelopeAge, EnvelopeAgeError, MailboxLimits, envelope_age};
pub use sqlite::SqliteStore;
pub use store::{
    Acknowledged, Acknowledgement, Collected, Deposited, Depth, Expired, MailboxStore,
    MailboxSummary, Page, StoreError,
};
