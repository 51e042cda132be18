//! `cargo xtask bench`: measures, with the settings of a release.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::cargo::{build, build_tests, cargo, folders};
use crate::python;
use crate::scenarios::{self, Programs};
use crate::test::PROCESSES_FEATURES;

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Bench {
    /// What the relay reaches under load, beside what the same HTTP stack and the disk reach without it.
    Load,
    /// Whether a deposit costs more the more is stored.
    Growth,
    /// The memory of relay and node at rest, and of a relay with a lot of mail and many clients.
    Memory,
    /// Mixed load for half an hour: whether memory, latency and disk stay as they are.
    Soak,
    /// What the node adds to a transaction that goes directly to its destination.
    Passing,
    /// Deposits per second into SQLite, beside the same relay with the store taken out.
    Deposits,
    /// What honest clients get while strangers flood the relay, beside what they get without.
    Floods,
    /// How long after its deposit a message is visible at a real homeserver whose node waits at the relay.
    Visible,
    /// How many bytes a message costs with one, two and three relays between real homeservers.
    Bytes,
    /// How fast a real homeserver takes what its node collected, beside the same from its origin directly.
    Intake,
    /// The relay's memory under many idle connections and many collects that wait.
    Crowds,
    /// How fast a node that comes back empties its mailbox, without a line between them and over a slow one.
    Draining,
}

/// How something is measured.
enum Way {
    /// By a bench target of a package.
    InProcess { package: &'static str, target: &'static str },
    /// By `restante-bench`, which has options.
    FromOutside(&'static str),
    /// By a scenario of that name.
    WithHomeservers(&'static str),
}

impl Bench {
    fn way(self) -> Way {
        match self {
            Self::Load => Way::FromOutside("load"),
            Self::Growth => Way::FromOutside("growth"),
            Self::Memory => Way::FromOutside("memory"),
            Self::Soak => Way::FromOutside("soak"),
            Self::Passing => Way::FromOutside("passing"),
            Self::Deposits => Way::InProcess { package: "restante-relay", target: "deposits" },
            Self::Floods => Way::FromOutside("floods"),
            Self::Visible => Way::WithHomeservers("measured_visible"),
            Self::Bytes => Way::WithHomeservers("measured_bytes"),
            Self::Intake => Way::WithHomeservers("measured_intake"),
            Self::Crowds => Way::FromOutside("crowds"),
            Self::Draining => Way::FromOutside("draining"),
        }
    }
}

/// Runs `bench` with `options` of its own; what it prints is its result.
pub(crate) fn run(bench: Bench, options: &[String]) -> Result<ExitCode> {
    match bench.way() {
        Way::FromOutside(what) => from_outside(what, options),
        _ if !options.is_empty() => bail!("this measurement has no options"),
        Way::InProcess { package, target } => in_process(package, target),
        Way::WithHomeservers(name) => with_homeservers(name),
    }
}

/// A bench target of the package itself.
fn in_process(package: &str, target: &str) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["bench", "--package", package, "--bench", target]);
    ended(command)
}

/// `restante-bench` beside the built program.
fn from_outside(what: &str, options: &[String]) -> Result<ExitCode> {
    let restante = build(&["build", "--release", "--bin", "restante"], "restante")?;
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "restante-bench", "--", "--program"]);
    command.arg(restante).arg(what).args(options);
    ended(command)
}

/// A measurement among the scenarios, with the program as it is released.
fn with_homeservers(name: &str) -> Result<ExitCode> {
    let (workspace, target) = folders()?;
    let restante = build(&["build", "--release", "--bin", "restante"], "restante")?;
    let tests = build_tests(&["--workspace", "--features", PROCESSES_FEATURES])?;
    let scenarios = tests.iter().find(|test| test.target == "scenarios");
    let scenarios = scenarios.context("the scenarios were not built")?;
    let programs = Programs { restante, python: python::environment(&workspace, &target)? };
    ended(scenarios::measurement(scenarios, &programs, name)?)
}

fn ended(mut command: std::process::Command) -> Result<ExitCode> {
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
