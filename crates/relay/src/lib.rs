//! The relay: takes deposits, keeps mailboxes, hands mail to its owners.
//!
//! [`Relay::start`] opens everything and binds; [`Relay::run`] serves until it is told to stop.
//! All routes are in `router.rs`; what a deposit must be is decided in `intake.rs`.

mod arrivals;
mod config;
mod errors;
mod expiry;
mod extract;
mod handlers;
mod intake;
mod memory;
mod own_key;
mod relay;
mod router;
mod service;
mod state;

pub use config::{LimitsSection, MailboxSection, RelayConfig, Serve};
pub use relay::{Relay, StartError};
pub use service::{Service, ServiceParts};
