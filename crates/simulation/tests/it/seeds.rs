//! Seeds one after the other, on as many threads as there are processors.
//!
//! `RESTANTE_SEED` is the first seed, `RESTANTE_COUNT` how many: `cargo xtask simulate` sets both.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use restante_simulation::{Options, Outcome, Plan, run, run_plan, shrink};

/// The first seed where no other is asked for.
const FIRST: u64 = 1;

/// Enough that every kind of plan comes several times, and few enough for every run of the tests.
const COUNT: u64 = 200;

/// Failing seeds that are told in full.
const TOLD_MAX: usize = 1;

/// Plans that are played to find what a failing seed needs to fail; each takes a fraction of a second.
const SHRINKING_TRIES_MAX: usize = 300;

/// Failing seeds after which no more are tried.
const FAILED_MAX: usize = 20;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn every_promise_is_kept_whatever_happens() {
    let first = number("RESTANTE_SEED", FIRST);
    let count = number("RESTANTE_COUNT", COUNT);
    let begun = std::time::Instant::now();
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<Outcome>> = Mutex::default();
    let tally: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count || failed.lock().unwrap().len() >= FAILED_MAX {
                        return;
                    }
                    let outcome = run(seed, Options::default());
                    for (kind, count) in &outcome.tally {
                        *tally.lock().unwrap().entry(kind).or_default() += count;
                    }
                    if let Some(first) = outcome.failures.first() {
                        println!(
                            "seed {seed}: {} failures, first: {first}",
                            outcome.failures.len()
                        );
                        failed.lock().unwrap().push(outcome);
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|outcome| outcome.seed);
    let tried = next.into_inner().min(first + count) - first;
    println!("{tried} seeds in {:.1} s, {} failed", begun.elapsed().as_secs_f64(), failed.len());
    for (kind, count) in tally.into_inner().unwrap() {
        println!("{count:>10} {kind}");
    }
    if count == 1 && failed.is_empty() {
        tell(Plan::draw(first));
    }
    for outcome in failed.iter().take(TOLD_MAX) {
        let whole = Plan::draw(outcome.seed);
        tell(whole.clone());
        let small = shrink(&whole, Options::default(), SHRINKING_TRIES_MAX);
        let (needed, all) = (small.steps.len(), whole.steps.len());
        println!("\nIt fails with {needed} of its {all} steps as well:\n");
        tell(small);
    }
    assert!(failed.is_empty(), "repeat one with: cargo xtask simulate --seed SEED --count 1");
}

/// Plays it again, with what the processes log.
fn tell(plan: Plan) {
    let seed = plan.seed;
    println!("{plan:#?}");
    let outcome = run_plan(plan, Options { tells_logs: true, ..Options::default() });
    for line in &outcome.story {
        println!("{line}");
    }
    for failure in &outcome.failures {
        println!("✗ {failure}");
    }
    println!("seed {seed}, repeat it with: cargo xtask simulate --seed {seed} --count 1");
}
