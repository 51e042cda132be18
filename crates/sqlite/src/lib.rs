//! SQLite opened one way: WAL, fsynced group commits on one writer, versioned migrations.
//!
//! [`Database::write`] returns only after the commit that holds the closure's work is on disk
//! (`journal_mode=WAL`, `synchronous=FULL`). Writes that wait together share one commit, and one
//! that fails takes nothing else with it.

mod again;
mod backup;
mod connection;
mod database;
mod error;
mod in_place;
mod lock;
mod migrations;
mod readers;
mod writer;

pub use again::{all_or_each, despite_others};
pub use backup::BackupError;
pub use database::{Database, Limits};
pub use error::{OpenError, StoreError, is_damaged};
pub use migrations::{Migration, Schema};
pub use rusqlite;
