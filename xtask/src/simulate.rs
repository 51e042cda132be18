//! `cargo xtask simulate`: relays, nodes and homeservers in virtual time, one course of events for each seed.

use std::process::ExitCode;

use anyhow::Result;

use crate::seeds::{self, Seeds};

const PACKAGE: &str = "restante-simulation";

/// The test that plays the seeds; the others prove that it can fail.
const TEST: &str = "every_promise_is_kept_whatever_happens";

/// As many as a release is judged by.
const COUNT: u64 = 100_000;

/// Plays the seeds on all processors; a seed that fails is told in full.
pub(crate) fn run(seeds: Seeds) -> Result<ExitCode> {
    seeds::run(&[PACKAGE], TEST, seeds, COUNT)
}
