//! An operators' door as monitors and operators meet it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod door;
mod entrance;
mod reload;
