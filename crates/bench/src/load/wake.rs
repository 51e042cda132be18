//! From the moment at which mail is sent to the answer of the collect that waits for it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Load;
use crate::figures::{Figure, Target, Unit};
use crate::mail::Beside;
use crate::numbers::Latencies;
use crate::owner::{self, Owner};
use crate::stage::Stage;
use crate::wire::Wire;

/// Bodies, bytes.
const BODY_BYTES: usize = 4096;

/// Until a collect waits: nobody says when it does, and one that does not yet is answered sooner, not later.
const SETTLE: Duration = Duration::from_millis(5);

/// Deposits of a second of a turn.
const PER_SECOND: f64 = 50.0;

/// Milliseconds, for the median.
const TARGET: f64 = 2.0;

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let owner = Owner::at(&stage.relay.server_name);
    let mut sender = Wire::open(stage.relay.address).await?;
    let mut waiting = Wire::open(stage.relay.address).await?;
    let times = load.seconds * PER_SECOND * f64::from(load.turns);
    let recipients = [owner.name().clone()];
    let deposits = (times as usize).max(10);
    let deposits = stage.writers.deposits(deposits, BODY_BYTES, &recipients, Beside::Nothing)?;
    let (mut latencies, mut after) = (Latencies::default(), 0);
    for deposit in deposits.iter() {
        let question = owner.long_poll(after);
        let leave = async {
            tokio::time::sleep(SETTLE).await;
            let sent = Instant::now();
            sender.ask(deposit).await?;
            anyhow::Ok(sent)
        };
        let wait = async {
            let answer = waiting.ask(&question).await?;
            let answered = Instant::now();
            anyhow::Ok((answered, owner::read(after, answer)?))
        };
        let (sent, (answered, batch)) = tokio::try_join!(leave, wait)?;
        after = batch.mail.last().context("a long poll was answered without mail")?.id;
        latencies.add(answered.saturating_duration_since(sent));
    }
    let figure =
        |what: &str, share| Figure::alone(what, Unit::Milliseconds, latencies.milliseconds(share));
    Ok(vec![
        figure("long poll, from deposit to answer, median", 0.5).wanted(Target::AtMost(TARGET)),
        figure("long poll, from deposit to answer, 99th", 0.99),
    ])
}
