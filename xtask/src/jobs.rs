//! Runs test programs, a few at a time, and shows what they say.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stream::lines_of;
use crate::tally::Tally;

/// One for each processor, and one for two more: whole systems wait for each other half of the time, and their deadlines are for
/// a machine that is not overrun.
fn at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors + processors / 2
}

/// One test program, or one test of it.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) command: Command,
    /// It is killed then, and has failed.
    pub(crate) deadline: Duration,
}

/// How one ended.
struct Outcome {
    name: String,
    tally: Tally,
    took: Duration,
}

/// Runs all, in this order as far as they begin, then prints a table of them.
pub(crate) fn run(jobs: Vec<Job>) -> Tally {
    let waiting = Mutex::new(VecDeque::from(jobs));
    let outcomes = Mutex::new(Vec::new());
    // A function of its own: in the loop's head the lock would be held for as long as the job runs.
    let next = || lock(&waiting).pop_front();
    std::thread::scope(|threads| {
        for _ in 0..at_once() {
            threads.spawn(|| {
                while let Some(job) = next() {
                    let outcome = run_one(job);
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
    tally
}

fn run_one(Job { name, mut command, deadline }: Job) -> Outcome {
    println!("{name} | starts");
    let start = Instant::now();
    let mut tally = Tally::default();
    let ended = lines_of(&mut command, deadline, |line| {
        tally.read(line);
        if is_worth_showing(line) {
            println!("{name} | {line}");
        }
    });
    let took = start.elapsed();
    let trouble = match ended {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(status.to_string()),
        Ok(None) => Some(format!("killed: it took longer than {} s", deadline.as_secs())),
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(trouble) = trouble {
        println!("{name} | {trouble}");
        if tally.failed == 0 {
            tally += Tally::ONE_FAILED;
        }
    }
    Outcome { name, tally, took }
}

/// What libtest says of a test that passed says nothing.
fn is_worth_showing(line: &str) -> bool {
    let noise = ["running ", "test result: ", "failures:"];
    let passed = line.starts_with("test ") && line.ends_with("... ok");
    !line.is_empty() && !passed && !noise.iter().any(|start| line.starts_with(start))
}

fn print_table(outcomes: &[Outcome]) {
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
    println!("\n{:width$}  result  passed  seconds", "test program");
    for Outcome { name, tally, took } in outcomes {
        let result = if tally.failed == 0 { "ok" } else { "FAILED" };
        println!("{name:width$}  {result:6}  {:6}  {:7.1}", tally.passed, took.as_secs_f64());
    }
    println!();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
