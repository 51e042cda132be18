//! `cargo xtask disk`: full, broken and lying disks under relays' mailboxes and nodes' databases.

use std::process::ExitCode;

use anyhow::Result;

use crate::seeds::{self, Seeds};

/// Those that keep something.
const PACKAGES: [&str; 2] = ["restante-mailbox", "restante-node"];

/// Each seed is a script of calls in which each operation of the disk fails in turn, about 1,500 times.
const COUNT: u64 = 10;

/// Plays the faults; a failure tells the seed that repeats it.
pub(crate) fn run(seeds: Seeds) -> Result<ExitCode> {
    seeds::run(&PACKAGES, "disk", seeds, COUNT)
}
