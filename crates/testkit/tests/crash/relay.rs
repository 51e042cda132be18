//! A relay under load is killed, stopped and started again.

use std::sync::Arc;

use restante_checker::{Allowance, Failure, Load, LoadPlan, Summary, verdict};
use restante_federation_proto::SystemClock;

use crate::dice::{Dice, End, in_time, pass};
use crate::plan;
use crate::victim::{Recipe, Victim};

/// Lives on one folder. Then the history is judged and another relay begins, so that neither grows.
const LIVES_PER_WORLD: usize = 40;

/// More calls than any number of lives takes.
const CALLS_WITHOUT_END: usize = usize::MAX;

/// How often which end came.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    pub(crate) killed: usize,
    stopped: usize,
}

/// One relay's lives on one folder, under one load.
struct World {
    recipe: Recipe,
    load: Arc<Load>,
    dice: Dice,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_again_and_again_keeps_every_promise() {
    let (seed, kills) = (plan::seed(), plan::relay_kills());
    println!("seed {seed}, {kills} kills");
    let (mut deaths, mut held) = (Deaths::default(), Summary::default());
    for world_seed in seed.. {
        let folder = tempfile::tempdir().unwrap();
        let lives = LIVES_PER_WORLD.min(kills - deaths.killed);
        let recipe = Recipe::relay(folder.path());
        match live(recipe, world_seed, lives, &mut deaths).await {
            Ok(summary) => held += summary,
            Err(failure) => panic!("seed {world_seed}: {failure}{}", plan::repeat(world_seed)),
        }
        if deaths.killed >= kills {
            break;
        }
    }
    println!("{} kills, {} stops: {held}", deaths.killed, deaths.stopped);
    assert!(held.deposits > kills && held.acknowledgements > kills && held.lost > kills, "{held}");
    // In time of peace no call that is in order is refused; a relay that stops may say 503.
    assert!(held.refused.keys().all(|status| *status == 503), "{held}");
}

/// Lets the relay of `recipe` die `kills` times under a load; judges what it answered.
pub(crate) async fn live(
    recipe: Recipe,
    seed: u64,
    kills: usize,
    deaths: &mut Deaths,
) -> Result<Summary, Box<Failure>> {
    let load = Load::new(LoadPlan::with_seed(seed), Arc::new(SystemClock)).unwrap();
    let mut world = World { recipe, load: Arc::new(load), dice: Dice::new(seed) };
    let load = world.load.clone();
    let running = tokio::spawn(async move { load.run(CALLS_WITHOUT_END).await });
    let killed_by = deaths.killed + kills;
    while deaths.killed < killed_by {
        world.one_life(deaths).await;
    }
    world.rest(running).await;
    verdict(&world.load.recorder().history(), &Allowance::default())
}

/// Lets the relay of `recipe` live through so many calls of a load; judges what it answered.
pub(crate) async fn live_in_peace(
    recipe: Recipe,
    seed: u64,
    calls: usize,
) -> Result<Summary, Box<Failure>> {
    let load = Load::new(LoadPlan::with_seed(seed), Arc::new(SystemClock)).unwrap();
    let mut victim = recipe.start().await;
    load.point_at(victim.peer.clone());
    load.run(calls).await;
    load.audit(&victim.peer).await;
    load.drain(&victim.peer).await;
    victim.process.terminate().await;
    verdict(&load.recorder().history(), &Allowance::default())
}

impl World {
    async fn one_life(&mut self, deaths: &mut Deaths) {
        let end = self.dice.end();
        if let End::Stillborn(age) = end {
            let (mut process, ..) = self.recipe.spawn();
            pass(age).await;
            process.kill().await;
            deaths.killed += 1;
            return;
        }
        let mut victim = self.recipe.start().await;
        self.load.audit(&victim.peer).await;
        let recorder = self.load.recorder();
        let calls_before = recorder.calls_ended();
        self.load.point_at(victim.peer.clone());
        match end {
            End::Stopped(calls) => {
                in_time("calls are answered", recorder.wait_for_calls(calls_before + calls)).await;
                victim.process.terminate().await;
                deaths.stopped += 1;
            }
            End::Killed(calls, after) => {
                in_time("calls are answered", recorder.wait_for_calls(calls_before + calls)).await;
                pass(after).await;
                victim.process.kill().await;
                deaths.killed += 1;
            }
            End::Stillborn(_) => {}
        }
        recorder.note_death();
        self.load.point_nowhere();
    }

    /// The last life, in peace: everything that is left is collected and acknowledged.
    async fn rest(&self, running: tokio::task::JoinHandle<()>) {
        let Victim { mut process, peer, .. } = self.recipe.start().await;
        self.load.stop();
        self.load.point_at(peer.clone());
        in_time("the load ends", running).await.unwrap();
        self.load.audit(&peer).await;
        self.load.drain(&peer).await;
        process.terminate().await;
    }
}
