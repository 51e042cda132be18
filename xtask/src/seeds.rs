//! Runs tests that play one case for each of many seeds.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::cargo::cargo;

/// Which cases to play.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Seeds {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, each one more than the one before.
    #[arg(long)]
    count: Option<u64>,
}

/// Runs the tests of `packages` whose name contains `filter`, with the settings of a release, for `count` seeds if the
/// caller named no other number. A test that fails prints the seed and its story.
pub(crate) fn run(packages: &[&str], filter: &str, seeds: Seeds, count: u64) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["test", "--release", "--no-fail-fast"]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.args([filter, "--", "--nocapture"]);
    command.env("RESTANTE_SEED", seeds.seed.to_string());
    command.env("RESTANTE_COUNT", seeds.count.unwrap_or(count).to_string());
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
