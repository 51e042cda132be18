//! `cargo xtask bench`: measures, with the settings of a release.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::cargo::{build, build_tests, cargo, folders};
use crate::python;
use crate::scenarios::{self, Programs};
use crate::test::PROCESSES_FEATURE;

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// Deposits per second into SQLite, beside the same relay with the store taken out.
    Deposits,
    /// What honest clients get while strangers flood the relay, beside what they get without.
    Floods,
    /// How long after its deposit a message is visible at a real homeserver whose node waits at the relay.
    Visible,
    /// How many bytes a message costs with one, two and three relays between real homeservers.
    Bytes,
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
        Bench::Visible => with_homeservers("measured_visible"),
        Bench::Bytes => with_homeservers("measured_bytes"),
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

/// A measurement among the scenarios, with the program as it is released.
fn with_homeservers(name: &str) -> Result<ExitCode> {
    let (workspace, target) = folders()?;
    let restante = build(&["build", "--release", "--bin", "restante"], "restante")?;
    let tests = build_tests(&["--workspace", "--features", PROCESSES_FEATURE])?;
    let scenarios = tests.iter().find(|test| test.target == "scenarios");
    let scenarios = scenarios.context("the scenarios were not built")?;
    let programs = Programs { restante, python: python::environment(&workspace, &target)? };
    ended(scenarios::measurement(scenarios, &programs, name)?)
}

fn ended(mut command: std::process::Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
