//! Deposits: how many a second in a closed loop, and how long each takes at half of that.

use std::path::Path;
use std::time::Duration;

use restante_federation_proto::ServerName;

use super::Load;
use crate::disk::Disk;
use crate::drive::open_loop;
use crate::figures::{Figure, Target, Unit};
use crate::limits::Limit;
use crate::mail::{Beside, strangers};
use crate::numbers::median;
use crate::schedule::turn_of;
use crate::stage::Stage;

/// The size that targets are about, KiB.
const USUAL: usize = 4;

/// Of what the same stack reaches with verification and no store.
const RATE_SHARE: f64 = 0.6;

/// Seconds and rate by which deposits are chosen that tell how many make up a turn.
const PILOT: (f64, f64) = (0.1, 2000.0);

/// Of each turn, the disk's part.
const DISK_SHARE: f64 = 0.5;

/// Deposits of each size.
pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in load.sizes() {
        figures.extend(of_size(program, load, size).await?);
    }
    Ok(figures)
}

/// Deposits as nodes make them.
pub(super) async fn measure_with_proofs(
    program: &Path,
    load: &Load,
) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let mut subject = Subject::at(&stage, load, USUAL * 1024, Beside::Proof);
    let rates = subject.rates([Limit::Prove, Limit::Read]).await?;
    let figure = || {
        let what = format!("deposits with a proof, {USUAL} KiB");
        Figure::alone(what, Unit::PerSecond, rates.relay)
    };
    let [prove, read] = rates.limits;
    Ok(vec![figure().beside("verify both", prove), figure().beside("read", read)])
}

async fn of_size(program: &Path, load: &Load, size: usize) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let mut subject = Subject::at(&stage, load, size * 1024, Beside::Nothing);
    let rates = subject.rates([Limit::Verify, Limit::Read]).await?;
    let latency = subject.latencies(rates.relay / 2.0).await?;
    let is_usual = size == USUAL;
    let wanted = |figure: Figure, target| if is_usual { figure.wanted(target) } else { figure };
    let figure = || Figure::alone(format!("deposits, {size} KiB"), Unit::PerSecond, rates.relay);
    let at_half = |which: &str, value| {
        let what = format!("a deposit at half of that, {size} KiB, {which}");
        Figure::alone(what, Unit::Milliseconds, value)
    };
    let [verify, read] = rates.limits;
    let mut figures = vec![
        wanted(figure().beside("verify", verify), Target::ShareAtLeast(RATE_SHARE)),
        figure().beside("read", read),
    ];
    if is_usual {
        figures.push(figure().beside("disk, 64 a sync", latency.batched));
        figures.push(figure().beside("disk, one a sync", latency.single));
    }
    let allowed = latency.verify + 2.0 * latency.sync;
    let median = at_half("median", latency.relay).beside("verify + 2 syncs", allowed);
    let slow = at_half("99th", latency.relay_99th).beside("verify, 99th", latency.verify_99th);
    figures.extend([wanted(median, Target::BelowLimit), slow]);
    Ok(figures)
}

/// Deposits of one kind.
struct Subject<'a> {
    stage: &'a Stage,
    load: &'a Load,
    bytes: usize,
    beside: Beside,
    mailbox: Vec<ServerName>,
}

/// Requests a second, medians of turns.
struct Rates {
    relay: f64,
    limits: [f64; 2],
}

/// Milliseconds, medians of turns.
struct HalfLoad {
    relay: f64,
    relay_99th: f64,
    verify: f64,
    verify_99th: f64,
    sync: f64,
    /// Appends a second.
    single: f64,
    batched: f64,
}

impl<'a> Subject<'a> {
    fn at(stage: &'a Stage, load: &'a Load, bytes: usize, beside: Beside) -> Self {
        Self { stage, load, bytes, beside, mailbox: strangers(1) }
    }

    /// Turns of relay and limits in a closed loop, with the same requests.
    async fn rates(&mut self, limits: [Limit; 2]) -> anyhow::Result<Rates> {
        let connections = self.load.connections();
        let (seconds, rate) = PILOT;
        let pilot = turn_of(rate, seconds.min(self.load.seconds), self.bytes);
        let pilot = self.stage.writers.deposits(pilot, self.bytes, &self.mailbox, self.beside)?;
        let rate = self.stage.ask_relay(connections, &pilot).await?.rate();
        let count = turn_of(rate, self.load.seconds, self.bytes);
        let (mut relay, mut beside) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in self.load.turns() {
            let requests =
                self.stage.writers.deposits(count, self.bytes, &self.mailbox, self.beside)?;
            relay.push(self.stage.ask_relay(connections, &requests).await?.rate());
            for (limit, rates) in limits.into_iter().zip(&mut beside) {
                rates.push(self.stage.ask_limit(limit, connections, &requests).await?.rate());
            }
        }
        Ok(Rates { relay: median(&relay), limits: beside.map(|rates| median(&rates)) })
    }

    /// Turns of relay, verification and disk at a fixed rate.
    async fn latencies(&self, rate: f64) -> anyhow::Result<HalfLoad> {
        let connections = self.load.connections();
        let count = turn_of(rate, self.load.seconds, self.bytes);
        let verify_at = self.stage.limits.address(Limit::Verify);
        let (mut relay, mut verify) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let (mut sync, mut single, mut batched) = (Vec::new(), Vec::new(), Vec::new());
        for _ in self.load.turns() {
            let requests =
                self.stage.writers.deposits(count, self.bytes, &self.mailbox, self.beside)?;
            for (address, turns) in
                [(self.stage.relay.address, &mut relay), (verify_at, &mut verify)]
            {
                let answered = open_loop(address, connections, &requests, rate).await?;
                turns[0].push(answered.latencies.milliseconds(0.5));
                turns[1].push(answered.latencies.milliseconds(0.99));
            }
            let time = Duration::from_secs_f64(self.load.seconds * DISK_SHARE);
            let disk = Disk::measure(self.stage.relay.data(), time)?;
            sync.push(disk.sync_ms);
            single.push(disk.single);
            batched.push(disk.batched);
        }
        let [relay, relay_99th] = relay.map(|turns| median(&turns));
        let [verify, verify_99th] = verify.map(|turns| median(&turns));
        let [sync, single, batched] = [sync, single, batched].map(|turns| median(&turns));
        Ok(HalfLoad { relay, relay_99th, verify, verify_99th, sync, single, batched })
    }
}
