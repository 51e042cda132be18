//! `cargo xtask test`: everything, and one line at the end that says how it went.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::scenarios::Programs;
use crate::tally::Tally;
use crate::{cargo, python, scenarios};

/// The package with the scenarios, its feature and its test target.
const SCENARIOS_FEATURE: &str = "restante-testkit/homeservers";
const SCENARIOS_TARGET: &str = "scenarios";

/// Runs all tests whose name contains `filter`. A step that can't run counts as one failure.
pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut tally = Tally::default();
    let mut troubles = Vec::new();
    for step in [run_cargo_tests, run_scenarios] {
        match step(filter) {
            Ok(counted) => tally += counted,
            Err(trouble) => {
                tally += Tally::ONE_FAILED;
                troubles.push(trouble);
            }
        }
    }
    for trouble in troubles {
        println!("{trouble:#}");
    }
    println!("{tally}");
    // The line is the promise: whoever waits for it must get it before the process ends.
    let _ = std::io::stdout().flush();
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What needs neither a network nor another program.
fn run_cargo_tests(filter: Option<&str>) -> Result<Tally> {
    let mut arguments = vec!["--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    cargo::test(&arguments)
}

fn run_scenarios(filter: Option<&str>) -> Result<Tally> {
    let (workspace, target) = cargo::folders()?;
    let programs = Programs {
        // First, because what it may miss is the reader's to install.
        python: python::environment(&workspace, &target)?,
        restante: build_restante()?,
        scenarios: build_scenarios()?,
    };
    scenarios::run(&programs, filter)
}

fn build_restante() -> Result<PathBuf> {
    cargo::build(&["build", "--workspace", "--bin", "restante"], "restante")
}

/// Built with the whole workspace selected, so that the dependencies are those of the other tests.
fn build_scenarios() -> Result<PathBuf> {
    let selection = ["--workspace", "--features", SCENARIOS_FEATURE, "--test", SCENARIOS_TARGET];
    cargo::build(&[&["test", "--no-run"], selection.as_slice()].concat(), SCENARIOS_TARGET)
}
