//! The resident memory of relay and node at rest, and of a relay with a lot of mail and a thousand clients.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use restante_federation_proto::ServerName;

use crate::collectors::{Collector, Collectors};
use crate::drive::open_loop;
use crate::figures::{self, Figure, Target, Unit};
use crate::mail::{Beside, strangers};
use crate::node::{Knows, NodeProcess};
use crate::origin::Origin;
use crate::owner::Owner;
use crate::stage::Stage;

/// Until what a start needs has been given back.
const SETTLE: Duration = Duration::from_secs(3);

/// Bodies of what the clients leave, bytes.
const BODY_BYTES: usize = 4096;

/// Deposits of each client a second.
const EACH_PER_SECOND: f64 = 0.5;

/// How long a collect waits.
const WAIT_MS: u64 = 2000;

/// Mailboxes that the stored mail is spread over.
const MAILBOXES: usize = 1000;

/// MiB: the relay at rest, at work, and the node at rest.
const TARGETS: [f64; 3] = [20.0, 64.0, 30.0];

/// How much is stored and how many call.
#[derive(Debug, Args)]
pub(crate) struct Memory {
    /// Envelopes that wait
    #[arg(long, default_value_t = 1_000_000)]
    envelopes: u32,
    /// Bytes of each
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=0x10_0000))]
    bytes: u32,
    /// Clients: half of them leave mail, half wait for it
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=4000))]
    clients: u16,
    /// Seconds in which they do so
    #[arg(long, default_value_t = 20)]
    seconds: u16,
}

/// Measures and prints the table.
pub(crate) async fn run(program: &Path, memory: &Memory) -> anyhow::Result<()> {
    let node = NodeProcess::start(program, &Origin::on_this_machine(), Knows::Nobody).await?;
    let stage = Stage::open(program).await?;
    tokio::time::sleep(SETTLE).await;
    let (node_at_rest, at_rest) = (node.memory_mib()?, stage.relay.memory_mib()?);
    drop(node);
    let stored = memory.envelopes as usize;
    stage.fill(stored, memory.bytes as usize, &strangers(MAILBOXES)).await?;
    let filled = stage.relay.memory_mib()?;
    let at_work = with_clients(&stage, memory).await?;
    let figure = |what: String, value| Figure::alone(what, Unit::Mebibytes, value);
    let bounded = |what: String, value, most| figure(what, value).wanted(Target::AtMost(most));
    figures::print(&[
        bounded("relay, at rest".to_owned(), at_rest, TARGETS[0]),
        figure(format!("relay, after {stored} deposits at 64 at once"), filled),
        bounded(
            format!("relay, {stored} envelopes, {} clients, most", memory.clients),
            at_work,
            TARGETS[1],
        ),
        bounded("node, at rest".to_owned(), node_at_rest, TARGETS[2]),
    ]);
    Ok(())
}

/// Half of the clients wait for mail, half leave some for them; the most that the relay had meanwhile.
async fn with_clients(stage: &Stage, memory: &Memory) -> anyhow::Result<f64> {
    let half = usize::from(memory.clients / 2);
    let owners: Vec<_> =
        (0..half).map(|_| Collector::of(Owner::at(&stage.relay.server_name))).collect();
    let names: Vec<ServerName> = owners.iter().map(|one| one.owner.name().clone()).collect();
    let waiting = Collectors::start(owners, stage.relay.address, WAIT_MS);
    let rate = half as f64 * EACH_PER_SECOND;
    let mut most = 0.0_f64;
    for _ in 0..memory.seconds {
        let count = (rate as usize).max(1);
        let deposits = stage.writers.deposits(count, BODY_BYTES, &names, Beside::Nothing)?;
        open_loop(stage.relay.address, half, &deposits, rate).await?;
        most = most.max(stage.relay.memory_mib()?);
    }
    waiting.stop().await?;
    Ok(most)
}
