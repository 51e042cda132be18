//! The checker itself: a relay that is right passes, and each way to be wrong is found and told in a few calls.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod backends;
mod bug;
mod damage;
mod found;
mod power_loss;
mod reference;
mod schedule;
