//! `cargo xtask test`: everything, and one line at the end that says how it went.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::scenarios::Programs;
use crate::tally::Tally;
use crate::{cargo, python, scenarios};

/// The feature with everything that runs the built program, and its test targets.
const SCENARIOS_FEATURE: &str = "restante-testkit/homeservers";
const SCENARIOS_TARGET: &str = "scenarios";
const CRASH_TARGET: &str = "crash";

/// Runs all tests whose name contains `filter`. A step that can't run counts as one failure.
pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut tally = Tally::default();
    let mut troubles = Vec::new();
    for step in [run_cargo_tests, run_scenarios, run_crashes] {
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
    run_with_processes(SCENARIOS_TARGET, filter)
}

/// A few kills; `cargo xtask crash` has the thousands.
fn run_crashes(filter: Option<&str>) -> Result<Tally> {
    run_with_processes(CRASH_TARGET, filter)
}

fn run_with_processes(target: &str, filter: Option<&str>) -> Result<Tally> {
    let (workspace, target_folder) = cargo::folders()?;
    let programs = Programs {
        // First, because what it may miss is the reader's to install.
        python: python::environment(&workspace, &target_folder)?,
        restante: build_restante()?,
        scenarios: build_with_processes(target)?,
    };
    scenarios::run(&programs, filter)
}

fn build_restante() -> Result<PathBuf> {
    cargo::build(&["build", "--workspace", "--bin", "restante"], "restante")
}

/// Built with the whole workspace selected, so that the dependencies are those of the other tests.
fn build_with_processes(target: &str) -> Result<PathBuf> {
    let selection = ["--workspace", "--features", SCENARIOS_FEATURE, "--test", target];
    cargo::build(&[&["test", "--no-run"], selection.as_slice()].concat(), target)
}
