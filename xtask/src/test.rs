//! `cargo xtask test`: everything, and one line at the end that says how it went.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cargo::TestProgram;
use crate::jobs::Job;
use crate::scenarios::Programs;
use crate::tally::Tally;
use crate::{cargo, jobs, python, scenarios};

/// The features with everything that runs the built program, and their test targets: one process for each test.
pub(crate) const PROCESSES_FEATURES: &str = "restante-testkit/homeservers,restante-bench/processes";
const PROCESSES_TARGETS: [&str; 3] = ["scenarios", "crash", "measurements"];

/// Those of the others that take longest begin first, so that none of them is left alone at the end.
const SLOW: [&str; 3] = ["simulation/it", "node", "relay/it"];

/// The longest of the others takes two minutes on an idle machine.
const DEADLINE: Duration = Duration::from_secs(900);

/// Runs all tests whose name contains `filter`. A step that can't run counts as one failure.
pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut tally = Tally::default();
    let (mut jobs, mut troubles) = (Vec::new(), Vec::new());
    match prepare(filter, &mut jobs) {
        Ok(()) => {}
        Err(trouble) => {
            tally += Tally::ONE_FAILED;
            troubles.push(trouble);
        }
    }
    tally += jobs::run(jobs);
    for trouble in troubles {
        println!("{trouble:#}");
    }
    println!("{tally}");
    // The line is the promise: whoever waits for it must get it before the process ends.
    let _ = std::io::stdout().flush();
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds everything and lists it in `jobs`: whole systems first, since they take longest and wait most. What does not
/// need what is missing on this machine is listed before that is told.
fn prepare(filter: Option<&str>, jobs: &mut Vec<Job>) -> Result<()> {
    let (workspace, target) = cargo::folders()?;
    let (built, python) = std::thread::scope(|threads| {
        // Most of it is waiting for a registry, while the compiler has the processors.
        let python = threads.spawn(|| python::environment(&workspace, &target));
        (build(), python.join())
    });
    let (restante, tests) = built?;
    let of_processes = |test: &&TestProgram| PROCESSES_TARGETS.contains(&&*test.target);
    let ordinary = tests.iter().filter(|test| !of_processes(test)).map(|test| job(test, filter));
    jobs.extend(ordinary);
    jobs.sort_by_key(|job| !SLOW.contains(&&*job.name));
    let python =
        python.map_err(|_| anyhow::anyhow!("making the Python environment panicked"))??;
    let programs = Programs { restante, python };
    let mut first = Vec::new();
    for test in tests.iter().filter(of_processes) {
        first.extend(scenarios::jobs(test, &programs, filter)?);
    }
    jobs.splice(0..0, first);
    Ok(())
}

/// The program, and all test programs, built with the same dependencies.
fn build() -> Result<(std::path::PathBuf, Vec<TestProgram>)> {
    let restante = cargo::build(&["build", "--workspace", "--bin", "restante"], "restante")?;
    Ok((restante, cargo::build_tests(&["--workspace", "--features", PROCESSES_FEATURES])?))
}

fn job(test: &TestProgram, filter: Option<&str>) -> Job {
    let mut command = test.command();
    command.args(filter);
    Job { name: test.name(), command, deadline: DEADLINE }
}
