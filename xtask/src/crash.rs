//! `cargo xtask crash`: relays and nodes killed in the middle of their work, thousands of times.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::cargo::{self, cargo};

/// The package with the harness, its feature and its test target.
const PACKAGE: &str = "restante-testkit";
const FEATURE: &str = "homeservers";
const TARGET: &str = "crash";

/// How often to kill.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Kills {
    /// Kills of relays; nodes are killed a fifth as often.
    #[arg(long, default_value_t = 2_000)]
    count: u64,
    /// What the load and the kills are drawn from; random without.
    #[arg(long)]
    seed: Option<u64>,
}

/// Kills and judges; a failure tells the seed and the command that repeats it.
pub(crate) fn run(kills: Kills) -> Result<ExitCode> {
    let build = ["build", "--release", "--workspace", "--bin", "restante"];
    let restante = cargo::build(&build, "restante")?;
    let mut command = cargo();
    command.args(["test", "--release", "--no-fail-fast", "--package", PACKAGE]);
    command.args(["--features", FEATURE, "--test", TARGET, "--", "--nocapture"]);
    command.env("RESTANTE_BIN", restante);
    command.env("RESTANTE_COUNT", kills.count.to_string());
    if let Some(seed) = kills.seed {
        command.env("RESTANTE_SEED", seed.to_string());
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
