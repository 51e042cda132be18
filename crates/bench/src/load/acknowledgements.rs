//! Acknowledging in batches of 50, durably.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use restante_federation_proto::ServerName;

use super::Load;
use crate::figures::{Figure, Unit};
use crate::limits::Limit;
use crate::numbers::median;
use crate::owner::{BATCH, Owner};
use crate::stage::Stage;

/// Owners, each of whom has one connection.
const OWNERS: usize = 16;

/// Bodies of what is acknowledged, bytes.
const BODY_BYTES: usize = 1024;

/// Batches of a second of a turn; each is 50 deposits that somebody has to make before.
const BATCHES_PER_SECOND: f64 = 100.0;

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let stage = Stage::open(program).await?;
    let relay = &stage.relay.server_name;
    let owners: Vec<_> = (0..OWNERS).map(|_| Owner::at(relay)).collect();
    let batches = ((load.seconds * BATCHES_PER_SECOND) as usize / OWNERS).max(1);
    let connections = load.connections().min(OWNERS);
    let (mut relay, mut verify) = (Vec::new(), Vec::new());
    for _ in load.turns() {
        let requests = acknowledgements(&stage, &owners, batches).await?;
        relay.push(stage.ask_relay(connections, &requests).await?.rate());
        verify.push(stage.ask_limit(Limit::Verify, connections, &requests).await?.rate());
    }
    let what = format!("acknowledgements of {BATCH}");
    let figure = Figure::alone(what, Unit::PerSecond, median(&relay));
    Ok(vec![figure.beside("verify", median(&verify))])
}

/// Leaves so many batches for each owner; the requests that acknowledge them, of each owner in turn.
async fn acknowledgements(
    stage: &Stage,
    owners: &[Owner],
    batches: usize,
) -> anyhow::Result<Arc<[Bytes]>> {
    let names: Vec<ServerName> = owners.iter().map(|owner| owner.name().clone()).collect();
    stage.fill(owners.len() * batches * BATCH as usize, BODY_BYTES, &names).await?;
    let mut requests = Vec::new();
    for owner in owners {
        let batches = owner.batches(stage.relay.address).await?;
        requests.push(batches.into_iter().map(|batch| owner.acknowledgement(batch.mail)).rev());
    }
    let mut in_turn = Vec::new();
    loop {
        let round: Vec<_> = requests.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            return Ok(in_turn.into());
        }
        in_turn.extend(round);
    }
}
