//! Two homeservers behind nodes write to each other while nodes and relays are killed: what is written arrives, once and
//! in order, and what a node has answered 200 survives even that the node never comes back.

mod hook;
mod judgement;
mod letters;
mod process;
mod world;

use crate::dice::{Dice, pass};
use crate::plan;
use world::{Side, World};

/// Kills in one world. Then everything has to arrive, and another begins, so that none grows.
const KILLS_PER_WORLD: usize = 20;

/// Messages in one round, before and after the kill.
const MESSAGES_MAX: usize = 6;

/// How long a round lets things go on before the kill: a deposit, an answer that is held, an envelope on its way in.
const BEFORE_THE_KILL_MICROS: u64 = 400_000;

/// How long what was killed stays away.
const AWAY_MICROS: u64 = 300_000;

/// Messages that are written last, when one side will never come back.
const LAST_MESSAGES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_killed_again_and_again_lose_nothing() {
    let (seed, kills) = (plan::seed(), plan::node_kills());
    println!("seed {seed}, {kills} kills");
    let (mut killed, mut arrived) = (0, 0);
    for world_seed in seed.. {
        let wanted = KILLS_PER_WORLD.min(kills - killed);
        killed += wanted;
        arrived += live(world_seed, wanted).await;
        if killed >= kills {
            break;
        }
    }
    println!("{killed} kills, {arrived} messages and EDUs arrived");
}

/// One world; how much arrived in it.
async fn live(seed: u64, kills: usize) -> usize {
    println!("world {seed}; {}", plan::repeat(seed));
    let mut world = World::start(seed).await;
    let mut dice = Dice::new(seed);
    let mut killed = 0;
    while killed < kills {
        killed += round(&mut world, &mut dice).await;
    }
    world.restore_link().await;
    world.settle().await;
    let arrived = world.check_both_ways();
    println!("world {seed}: {arrived} arrived in order");
    one_side_dies_for_good(&mut world, &mut dice).await;
    arrived
}

/// Messages, kills, messages, and everything runs again; how many were killed.
async fn round(world: &mut World, dice: &mut Dice) -> usize {
    match dice.below(3) {
        0 => world.cut_link().await,
        _ => world.restore_link().await,
    }
    // While a homeserver does not answer, its mail stays in its node's inbox, and only there.
    let asleep = [Side::A, Side::B].map(|side| (side, dice.below(4) == 0));
    asleep.iter().for_each(|(side, asleep)| world.answer(*side, !asleep));
    write_some(world, dice);
    pass(dice.micros(BEFORE_THE_KILL_MICROS)).await;
    let victims = world.draw_victims(dice);
    let mut killed = world.end(&victims, dice).await;
    write_some(world, dice);
    pass(dice.micros(AWAY_MICROS)).await;
    killed += world.start_again(&victims, dice).await;
    asleep.iter().for_each(|(side, _)| world.answer(*side, true));
    killed
}

fn write_some(world: &mut World, dice: &mut Dice) {
    for _ in 0..dice.below(MESSAGES_MAX) {
        let side = if dice.below(2) == 0 { Side::A } else { Side::B };
        world.write(side);
    }
}

/// What one side's node has answered 200 is with the other side or at a relay, and no longer depends on that node.
async fn one_side_dies_for_good(world: &mut World, dice: &mut Dice) {
    let (lost, left) = if dice.below(2) == 0 { (Side::A, Side::B) } else { (Side::B, Side::A) };
    world.cut_link().await;
    for _ in 0..LAST_MESSAGES {
        world.write(lost);
    }
    pass(dice.micros(4 * BEFORE_THE_KILL_MICROS)).await;
    world.lose(lost).await;
    world.settle_without(lost).await;
    world.check_promised(lost, left);
}
