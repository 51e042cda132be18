//! `cargo xtask powerloss`: power lost under relays' mailboxes and nodes' databases, many times.

use std::process::ExitCode;

use anyhow::Result;

use crate::seeds::{self, Seeds};

/// Those that keep something.
const PACKAGES: [&str; 3] = ["restante-mailbox", "restante-node", "restante-checker"];

/// About five losses for each seed and package.
const COUNT: u64 = 2_000;

/// Plays the losses; a failure tells the seed that repeats it.
pub(crate) fn run(seeds: Seeds) -> Result<ExitCode> {
    seeds::run(&PACKAGES, "power_loss", seeds, COUNT)
}
