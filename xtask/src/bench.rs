//! `cargo xtask bench`: measures, with the settings of a release.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::cargo::{build, cargo};

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// Deposits per second into SQLite, beside the same relay with the store taken out.
    Deposits,
    /// What honest clients get while strangers flood the relay, beside what they get without.
    Floods,
    /// The relay's memory under many idle connections and many collects that wait.
    Crowds,
    /// How fast a node that comes back empties its mailbox, without a line between them and over a slow one.
    Draining,
}

/// Runs `bench`; what it prints is its result.
pub(crate) fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Deposits => in_process("restante-relay", "deposits"),
        Bench::Floods => from_outside("floods"),
        Bench::Crowds => from_outside("crowds"),
        Bench::Draining => from_outside("draining"),
    }
}

/// A bench target of the package itself.
fn in_process(package: &str, target: &str) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["bench", "--package", package, "--bench", target]);
    ended(command)
}

/// `restante-bench` beside the built program.
fn from_outside(what: &str) -> Result<ExitCode> {
    let restante = build(&["build", "--release", "--bin", "restante"], "restante")?;
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "restante-bench", "--", "--program"]);
    command.arg(restante).arg(what);
    ended(command)
}

fn ended(mut command: std::process::Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
