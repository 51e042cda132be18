//! The relay: takes deposits, keeps mailboxes, hands mail to its owners.
//!
//! [`Relay::start`] opens everything and binds; [`Relay::run`] serves until it is told to stop.
//! All routes are in `router.rs`; what a deposit must be is decided in `intake.rs`.

mod admission;
mod arrivals;
mod callers;
mod config;
mod disk;
mod errors;
mod expiry;
mod extract;
mod handlers;
mod intake;
mod lapsing;
mod lifetime;
mod memory;
mod metrics;
mod onward;
mod operators;
mod own_key;
mod rates;
mod registering;
mod registrations;
mod relay;
mod reload;
mod request_log;
mod router;
mod rules;
mod service;
mod signed_at;
mod state;
mod stores;
mod told;

pub use config::{
    AtRestSection, LimitsSection, MailboxSection, OnwardSection, OperatorsSection, RelayConfig,
    Serve, StorageSection,
};
pub use disk::{Disk, FolderDisk, NoDisk};
pub use relay::{Relay, StartError};
pub use reload::RELOADED_KEYS;
pub use rules::LAPSE_AFTER_LEAST;
pub use service::{Service, ServiceParts};
pub use stores::Stores;
