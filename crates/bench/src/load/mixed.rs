//! Deposits while their recipients wait, collect and acknowledge.

use std::path::Path;
use std::time::Instant;

use restante_federation_proto::ServerName;

use super::Load;
use crate::collectors::{Collector, Collectors};
use crate::figures::{Figure, Unit};
use crate::limits::Limit;
use crate::mail::Beside;
use crate::numbers::median;
use crate::owner::Owner;
use crate::schedule::turn_of;
use crate::stage::Stage;

/// Owners, each of whom has one connection.
const OWNERS: usize = 16;

/// Bodies, bytes.
const BODY_BYTES: usize = 4096;

/// Deposits that tell how many make up a turn.
const PILOT: usize = 200;

/// How long a collect waits: short, so that all owners hear of the end of a turn soon.
const WAIT_MS: u64 = 100;

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let relay = &stage.relay.server_name;
    let mut owners = (0..OWNERS).map(|_| Collector::of(Owner::at(relay))).collect();
    let pilot = turn(&stage, load, &mut owners, PILOT).await?;
    let count = turn_of(pilot.deposits, load.seconds, BODY_BYTES);
    let mut turns = Vec::new();
    for _ in load.turns() {
        turns.push(turn(&stage, load, &mut owners, count).await?);
    }
    let middle = |of: fn(&Turn) -> f64| median(&turns.iter().map(of).collect::<Vec<_>>());
    Ok(vec![
        Figure::alone("mixed, 4 KiB: deposits", Unit::PerSecond, middle(|turn| turn.deposits))
            .beside("verify", middle(|turn| turn.verify)),
        Figure::alone(
            "mixed, 4 KiB: collected and acknowledged",
            Unit::PerSecond,
            middle(|turn| turn.collected),
        ),
        Figure::alone(
            "mixed, 4 KiB: a deposit, median",
            Unit::Milliseconds,
            middle(|turn| turn.median),
        ),
        Figure::alone(
            "mixed, 4 KiB: a deposit, 99th",
            Unit::Milliseconds,
            middle(|turn| turn.slow),
        ),
    ])
}

/// One turn's figures.
struct Turn {
    deposits: f64,
    verify: f64,
    collected: f64,
    median: f64,
    slow: f64,
}

async fn turn(
    stage: &Stage,
    load: &Load,
    owners: &mut Vec<Collector>,
    count: usize,
) -> anyhow::Result<Turn> {
    let names: Vec<ServerName> = owners.iter().map(|one| one.owner.name().clone()).collect();
    let deposits = stage.writers.deposits(count, BODY_BYTES, &names, Beside::Nothing)?;
    let began = Instant::now();
    let collecting = Collectors::start(owners.drain(..), stage.relay.address, WAIT_MS);
    let answered = stage.ask_relay(load.connections(), &deposits).await?;
    let (collected, rested) = collecting.stop().await?;
    *owners = rested;
    let collected = collected as f64 / began.elapsed().as_secs_f64();
    let verify = stage.ask_limit(Limit::Verify, load.connections(), &deposits).await?.rate();
    Ok(Turn {
        deposits: answered.rate(),
        verify,
        collected,
        median: answered.latencies.milliseconds(0.5),
        slow: answered.latencies.milliseconds(0.99),
    })
}
