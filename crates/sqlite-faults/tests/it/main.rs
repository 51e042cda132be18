//! What the disk promises, tried with SQLite alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod losses;
mod notes;
