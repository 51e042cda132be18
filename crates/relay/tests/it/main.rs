//! The relay over real HTTP, as its callers meet it. Key-named servers need no key look-ups.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod accounts;
mod admission;
mod bad_input;
mod capsule;
mod collect;
mod compression;
mod deposit;
mod harness;
mod hostile;
mod key_change;
mod keys;
mod limits;
mod logs;
mod onward;
mod operators;
mod pressure;
mod proof;
mod registration;
mod relay_txn;
mod restart;
mod stock_dendrite;
mod upkeep;
