//! Runs the whole-system scenarios, each in a process of its own, a few at a time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::stream::lines_of;
use crate::tally::Tally;

/// Each runs two homeservers with a core's worth of work.
const AT_ONCE: usize = 2;

/// A scenario takes up to a minute on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// What the scenarios run.
pub(crate) struct Programs {
    /// The test program with the scenarios.
    pub(crate) scenarios: PathBuf,
    /// The program under test.
    pub(crate) restante: PathBuf,
    /// The Python with a homeserver and a client.
    pub(crate) python: PathBuf,
}

/// How one ended.
struct Outcome {
    name: String,
    tally: Tally,
    took: Duration,
}

/// Runs the scenarios whose name contains `filter`, then prints a table of them.
pub(crate) fn run(programs: &Programs, filter: Option<&str>) -> Result<Tally> {
    let names = list(&programs.scenarios, filter)?;
    let waiting = Mutex::new(names);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(name) = lock(&waiting).pop_front() {
                    let outcome = run_one(programs, name);
                    lock(&outcomes).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    print_table(&outcomes);
    let mut tally = Tally::default();
    outcomes.iter().for_each(|outcome| tally += outcome.tally);
    Ok(tally)
}

fn list(scenarios: &Path, filter: Option<&str>) -> Result<VecDeque<String>> {
    let output = Command::new(scenarios).args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("cannot start {}", scenarios.display()))?;
    if !output.status.success() {
        bail!("{} does not list its tests", scenarios.display());
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let wanted = names.filter(|name| filter.is_none_or(|filter| name.contains(filter)));
    Ok(wanted.map(str::to_owned).collect())
}

fn run_one(programs: &Programs, name: String) -> Outcome {
    println!("{name} | starts");
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut command = Command::new(&programs.scenarios);
    command.args([&name, "--exact", "--nocapture"]);
    command.env("RESTANTE_BIN", &programs.restante).env("RESTANTE_PYTHON", &programs.python);
    let ended = lines_of(&mut command, DEADLINE, |line| {
        tally.read(line);
        if is_worth_showing(line) {
            println!("{name} | {line}");
        }
    });
    let took = start.elapsed();
    let trouble = match ended {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(status.to_string()),
        Ok(None) => Some(format!("killed: it took longer than {} s", DEADLINE.as_secs())),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(trouble) = trouble {
        println!("{name} | {trouble}");
        if tally.failed == 0 {
            tally = Tally::ONE_FAILED;
        }
    }
    Outcome { name, tally, took }
}

/// What libtest says around a single test says nothing.
fn is_worth_showing(line: &str) -> bool {
    let noise = ["running 1 test", "test result: ", "failures:"];
    !line.is_empty() && !noise.iter().any(|start| line.starts_with(start))
}

fn print_table(outcomes: &[Outcome]) {
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
    println!("\n{:width$}  result  seconds", "scenario");
    for Outcome { name, tally, took } in outcomes {
        let result = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("{name:width$}  {result:6}  {:7.1}", took.as_secs_f64());
    }
    println!();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
