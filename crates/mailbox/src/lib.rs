//! What a relay holds: mailboxes, their rules, the store traits and their backends.
//!
//! Knows no HTTP and reads no clock.

mod accounts;
mod ahead;
mod at_rest;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod custody;
mod duplicate;
mod envelope;
mod lapse;
mod losses;
mod memory;
mod onward;
mod registry;
mod rules;
mod sqlite;
mod store;
mod upkeep;

pub use accounts::{Accounts, MailName, NAMES_AHEAD_MAX, Whereabouts};
pub use at_rest::{KEYS_MAX, KeyError, KeyFileError, Keys};
pub use custody::{
    Condition, Custody, EnvelopeLine, Found, HOLD_GRACE, Imported, Selection, Share,
};
pub use duplicate::DuplicateKey;
pub use envelope::{ContentHash, Deposit, EntryId, OF_THE_MOMENT, Onward, StoredEnvelope};
pub use lapse::{AdmittedBy, Lapse, Lapsed};
pub use losses::{LOSS_ORIGINS_MAX, Loss, LossKind};
pub use memory::MemoryStore;
pub use onward::{HandedOn, OnwardMail, Withdrawal};
pub use registry::{
    INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, Left, LeftMail, NOTE_BYTES_MAX,
    OpenInvite, Outgoing, REGISTRATION_BYTES_MAX, REGISTRATIONS_MAX, RegisterOutcome, Registration,
    Registry, Revoked, Senders,
};
pub use rules::{
    EnvelopeAge, EnvelopeAgeError, Full, MailboxLimits, OnwardLimits, Quotas, envelope_age,
};
pub use sqlite::{RestoreError, Restored, SqliteStore};
pub use store::{
    Acknowledged, Acknowledgement, Collected, Deposited, Depth, Due, Expired, Hold, Known,
    MailboxStore, MailboxSummary, Page, Registered, StoreError,
};
pub use upkeep::{Backup, BackupError, KeyUse, Resealed, Totals, Upkeep};
