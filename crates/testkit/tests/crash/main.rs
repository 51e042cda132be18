//! Kills relays and nodes in the middle of their work, again and again: what they answered holds.
//!
//! The programs are the built ones, as strangers run them. `cargo xtask test` kills a few, `cargo xtask crash` thousands. A run
//! that fails prints its seed, the calls that show what was broken, and the command that repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod dice;
mod node;
mod plan;
mod relay;
mod sabotage;
mod victim;
