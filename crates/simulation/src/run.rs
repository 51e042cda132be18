//! Plays one plan from its beginning to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::checks::{Expected, excused, failures, open_ends};
use crate::network::Sabotage;
use crate::plan::Plan;
use crate::world::World;
use crate::{logs, panics};

/// How a plan is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
    /// Whether what the processes log is part of the story.
    pub tells_logs: bool,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What is wrong; empty if all promises were kept.
    pub failures: Vec<String>,
    /// What happened.
    pub story: Vec<String>,
    /// How often what happened.
    pub tally: BTreeMap<&'static str, u64>,
    /// Two runs that took the same course share it.
    pub digest: u64,
    /// Virtual time.
    pub lasted: Duration,
}

/// Between two looks whether all is done.
const LOOK: Duration = Duration::from_secs(10);

/// Until all must be done: several back-offs of everybody, and the longest wait of a node for a gap.
const PATIENCE: Duration = Duration::from_secs(50 * 60);

/// How long it goes on when all is done, so that what comes twice has come.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// Draws the plan of `seed` and plays it.
pub fn run(seed: u64, options: Options) -> Outcome {
    run_plan(Plan::draw(seed), options)
}

/// Plays a plan.
pub fn run_plan(plan: Plan, options: Options) -> Outcome {
    panics::begin();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output starts");
    let mut outcome = runtime.block_on(play(plan, options));
    outcome.failures.extend(panics::noted());
    outcome
}

async fn play(plan: Plan, options: Options) -> Outcome {
    let begun = Instant::now();
    let seed = plan.seed;
    let mut world = World::new(plan, options.sabotage);
    let _logs = options.tells_logs.then(|| logs::tell(world.story.clone()));
    world.start();
    let steps = world.plan.steps.clone();
    for (at, step) in &steps {
        tokio::time::sleep_until(begun + *at).await;
        world.take(step);
    }
    tokio::time::sleep_until(begun + world.plan.mended_at).await;
    world.mend();
    let mut failures = settle(&world, Expected::WhatWasTaken).await;
    world.last_words();
    failures.extend(settle(&world, Expected::Everything).await);
    Outcome {
        seed,
        failures,
        story: world.story.lines(),
        tally: world.network.tally(),
        digest: world.story.digest(),
        lasted: begun.elapsed(),
    }
}

/// Waits until all that is expected has come, and some more; what is wrong then.
async fn settle(world: &World, expected: Expected) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut wrong = Vec::new();
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        wrong = what_is_wrong(world, expected).await;
        if !wrong.is_empty() {
            continue;
        }
        if expected == Expected::WhatWasTaken {
            break;
        }
        tokio::time::sleep(AFTERWARDS).await;
        wrong = what_is_wrong(world, expected).await;
        if wrong.is_empty() {
            break;
        }
    }
    if !wrong.is_empty() {
        tell_what_nodes_hold(world).await;
    }
    wrong
}

/// Where mail is that should have come.
async fn tell_what_nodes_hold(world: &World) {
    for machine in world.present().filter(|machine| machine.has_node()) {
        let (status, parked) = (machine.status().await, machine.parked().await);
        let inbox = status.map(|status| status["inbox"].clone()).unwrap_or_default();
        let (name, parked) = (machine.name(), parked.unwrap_or_default());
        world.story.tell(format_args!("the node of {name} holds {inbox}, parked {parked}"));
    }
}

async fn what_is_wrong(world: &World, expected: Expected) -> Vec<String> {
    let open = open_ends(world, expected, &excused(world).await);
    if open.is_empty() && expected == Expected::Everything {
        return failures(world, expected).await;
    }
    open
}
