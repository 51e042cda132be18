//! What a database promises, tried through its public face.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod opening;
mod reading;
mod support;
mod writing;
