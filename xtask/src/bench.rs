//! `cargo xtask bench`: measures, with the settings of a release.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::cargo::cargo;

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// Deposits per second into SQLite, beside the same relay with the store taken out.
    Deposits,
}

impl Bench {
    /// Its package and its bench target.
    fn target(self) -> (&'static str, &'static str) {
        match self {
            Self::Deposits => ("restante-relay", "deposits"),
        }
    }
}

/// Runs `bench`; what it prints is its result.
pub(crate) fn run(bench: Bench) -> Result<ExitCode> {
    let (package, target) = bench.target();
    let mut command = cargo();
    command.args(["bench", "--package", package, "--bench", target]);
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
