//! Deposits while their recipients wait, collect and acknowledge.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use restante_federation_proto::ServerName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Load;
use crate::figures::{Figure, Unit};
use crate::limits::Limit;
use crate::mail::Beside;
use crate::numbers::median;
use crate::owner::{self, Owner};
use crate::schedule::turn_of;
use crate::stage::Stage;
use crate::wire::Wire;

/// Owners, each of whom has one connection.
const OWNERS: usize = 16;

/// Bodies, bytes.
const BODY_BYTES: usize = 4096;

/// Deposits that tell how many make up a turn.
const PILOT: usize = 500;

/// How long a collect waits: short, so that all owners hear of the end of a turn soon.
const WAIT_MS: u64 = 100;

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let relay = &stage.relay.server_name;
    let owners: Arc<[Owner]> = (0..OWNERS).map(|_| Owner::at(relay)).collect();
    let mut after = vec![0; OWNERS];
    let pilot = turn(&stage, load, &owners, &mut after, PILOT).await?;
    let count = turn_of(pilot.deposits, load.seconds, BODY_BYTES);
    let mut turns = Vec::new();
    for _ in load.turns() {
        turns.push(turn(&stage, load, &owners, &mut after, count).await?);
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
    owners: &Arc<[Owner]>,
    after: &mut [u64],
    count: usize,
) -> anyhow::Result<Turn> {
    let names: Vec<ServerName> = owners.iter().map(|owner| owner.name().clone()).collect();
    let deposits = stage.writers.deposits(count, BODY_BYTES, &names, Beside::Nothing)?;
    let (mut collecting, stop, began) = (JoinSet::new(), CancellationToken::new(), Instant::now());
    for (number, after) in after.iter().enumerate() {
        let collector = Collector { owners: owners.clone(), number, after: *after };
        collecting.spawn(collector.go_on(stage.relay.address, stop.clone()));
    }
    let answered = stage.ask_relay(load.connections(), &deposits).await?;
    stop.cancel();
    let mut collected = 0;
    while let Some(collector) = collecting.join_next().await {
        let (count, collector) = collector.context("an owner's task panicked")??;
        collected += count;
        after[collector.number] = collector.after;
    }
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

/// One owner at work.
struct Collector {
    owners: Arc<[Owner]>,
    number: usize,
    after: u64,
}

impl Collector {
    /// Collects and acknowledges until `stop`, and then until its mailbox is empty; how much.
    async fn go_on(
        mut self,
        relay: SocketAddr,
        stop: CancellationToken,
    ) -> anyhow::Result<(usize, Self)> {
        let mut wire = Wire::open(relay).await?;
        let (mut collected, mut acknowledge) = (0, Vec::new());
        loop {
            let owner = &self.owners[self.number];
            let request = owner.next(self.after, std::mem::take(&mut acknowledge), WAIT_MS);
            let is_last = stop.is_cancelled();
            let batch = owner::read(self.after, wire.ask(&request).await?)?;
            collected += batch.mail.len();
            self.after = batch.mail.last().map_or(self.after, |last| last.id);
            acknowledge = batch.mail;
            if is_last && acknowledge.is_empty() {
                return Ok((collected, self));
            }
        }
    }
}
