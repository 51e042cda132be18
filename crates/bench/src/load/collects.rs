//! Collecting in batches of 50, in bytes, beside answers of the same length that nobody had to look up.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use restante_federation_proto::ServerName;

use super::Load;
use crate::figures::{Figure, Target, Unit};
use crate::limits::Limit;
use crate::numbers::median;
use crate::owner::{Batch, Owner};
use crate::schedule::turn_of;
use crate::stage::Stage;

/// Bodies, KiB: of larger ones, no batch of 50 fits into an answer.
const SIZE_MAX: usize = 64;

/// The size that the target is about, KiB.
const USUAL: usize = 4;

/// Of what the HTTP stack moves.
const SHARE: f64 = 0.7;

/// Owners, each of whom has one connection.
const OWNERS: usize = 8;

/// Envelopes of each owner, if they are small and turns are not short.
const ENVELOPES_MAX: usize = 500;

/// The same for short turns: there is more than one batch.
const ENVELOPES_MIN: usize = 60;

/// All that is stored.
const STORED_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in load.sizes().filter(|size| *size <= SIZE_MAX) {
        figures.push(of_size(program, load, size).await?);
    }
    Ok(figures)
}

async fn of_size(program: &Path, load: &Load, size: usize) -> anyhow::Result<Figure> {
    let stage = Stage::open(program).await?;
    let mailboxes = Mailboxes::fill(&stage, load, size * 1024).await?;
    let connections = load.connections().min(OWNERS);
    let (pilot, _) = mailboxes.requests(OWNERS * 2);
    let rate = stage.ask_relay(connections, &pilot).await?.rate();
    let count = turn_of(rate, load.seconds, 1024);
    let (mut relay, mut limit) = (Vec::new(), Vec::new());
    for _ in load.turns() {
        let (questions, of_bytes) = mailboxes.requests(count);
        relay.push(throughput(stage.ask_relay(connections, &questions).await?));
        limit.push(throughput(stage.ask_limit(Limit::Answer, connections, &of_bytes).await?));
    }
    let what = format!("collects of {}, {size} KiB", crate::owner::BATCH);
    let figure = Figure::alone(what, Unit::Throughput, median(&relay));
    let figure = figure.beside("answer", median(&limit));
    Ok(if size == USUAL { figure.wanted(Target::ShareAtLeast(SHARE)) } else { figure })
}

fn throughput(answered: crate::drive::Answered) -> f64 {
    answered.bytes as f64 / 1024.0 / 1024.0 / answered.took.as_secs_f64()
}

/// Mail that waits, and in which batches it comes.
struct Mailboxes {
    owners: Vec<(Owner, Vec<Batch>)>,
}

impl Mailboxes {
    async fn fill(stage: &Stage, load: &Load, bytes: usize) -> anyhow::Result<Self> {
        let relay = &stage.relay.server_name;
        let owners: Vec<_> = (0..OWNERS).map(|_| Owner::at(relay)).collect();
        let names: Vec<ServerName> = owners.iter().map(|owner| owner.name().clone()).collect();
        let by_time = (load.seconds * ENVELOPES_MAX as f64) as usize;
        let each = by_time.clamp(ENVELOPES_MIN, ENVELOPES_MAX);
        let each = each.min(STORED_BYTES_MAX / OWNERS / bytes);
        stage.fill(each * OWNERS, bytes, &names).await?;
        let mut filled = Vec::new();
        for owner in owners {
            let batches = owner.batches(stage.relay.address).await?;
            filled.push((owner, batches));
        }
        Ok(Self { owners: filled })
    }

    /// So many questions, of each owner in turn, batch after batch; and the same that only say how long their answers are.
    fn requests(&self, count: usize) -> (Arc<[Bytes]>, Arc<[Bytes]>) {
        let pair = |number: usize| {
            let (owner, batches) = &self.owners[number % OWNERS];
            let batch = &batches[(number / OWNERS) % batches.len()];
            (owner.batch(batch.after), owner.question_of_bytes(batch.after, batch.bytes))
        };
        let (questions, of_bytes): (Vec<_>, Vec<_>) = (0..count).map(pair).unzip();
        (questions.into(), of_bytes.into())
    }
}
