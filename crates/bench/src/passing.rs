//! What the node adds to a `/send` that goes directly to its destination: the same call with and without it, in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use restante_relay_api::endpoints::SEND;

use crate::disk::Disk;
use crate::figures::{self, Figure, Target, Unit};
use crate::limits::Limit;
use crate::limits::process::LimitsProcess;
use crate::mail::Writers;
use crate::node::{Knows, NodeProcess};
use crate::numbers::Latencies;
use crate::origin::Origin;
use crate::wire::Wire;

/// Bodies, bytes.
const BODY_BYTES: usize = 4096;

/// Calls that are not counted: connections and the destination's keys come into being.
const BEFORE: usize = 10;

/// For the disk.
const DISK_TIME: Duration = Duration::from_secs(1);

/// Milliseconds that the node may add to the median.
const ADDED: f64 = 1.0;

/// How much is sent.
#[derive(Debug, Args)]
pub(crate) struct Passing {
    /// Transactions each way
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    transactions: u32,
}

/// Measures and prints the table. A homeserver sends one transaction at a time to each destination, and so does this.
pub(crate) async fn run(program: &Path, passing: &Passing) -> anyhow::Result<()> {
    let (origin, destination) = (Origin::on_this_machine(), Origin::on_this_machine().name);
    let limits = LimitsProcess::start(&destination).await?;
    let there = limits.address(Limit::Verify);
    let node = NodeProcess::start(program, &origin, Knows::Route(&destination, there)).await?;
    let writers = Writers::to(&destination);
    let (mut direct, mut through) = (Wire::open(there).await?, Wire::open(node.outbound()).await?);
    let (mut without, mut with) = (Latencies::default(), Latencies::default());
    for number in 0..BEFORE + passing.transactions as usize {
        let content = writers.transaction(&origin.name, BODY_BYTES);
        let target = format!("{SEND}{:016x}", rand::random::<u64>()).parse()?;
        let content = content.as_bytes();
        let request = origin.signed_bytes(&Method::PUT, &target, &destination, content);
        let handed_over = NodeProcess::handed_over(&origin, &target, &destination, content);
        let (alone, together) =
            (timed(&mut direct, &request).await?, timed(&mut through, &handed_over).await?);
        if number >= BEFORE {
            without.add(alone);
            with.add(together);
        }
    }
    let disk = Disk::measure(Path::new("."), DISK_TIME)?;
    println!(
        "{} transactions of {} KiB each way, one after the other, to a server that verifies and keeps nothing.",
        passing.transactions,
        BODY_BYTES / 1024
    );
    figures::print(&rows(&without, &with, disk.sync_ms));
    Ok(())
}

async fn timed(wire: &mut Wire, request: &[u8]) -> anyhow::Result<Duration> {
    let from = Instant::now();
    wire.ask(request).await?;
    Ok(from.elapsed())
}

fn rows(without: &Latencies, with: &Latencies, sync_ms: f64) -> Vec<Figure> {
    let figure = |what: &str, value| Figure::alone(what, Unit::Milliseconds, value);
    let added = |share| with.milliseconds(share) - without.milliseconds(share);
    vec![
        figure("a /send without the node, median", without.milliseconds(0.5)),
        figure("a /send through the node, median", with.milliseconds(0.5)),
        figure("added by the node, median", added(0.5))
            .beside("a sync", sync_ms)
            .wanted(Target::AtMost(ADDED)),
        figure("added by the node, 99th", added(0.99)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_adds_is_the_difference_of_the_medians() {
        let latencies = |milliseconds: u64| {
            let mut latencies = Latencies::default();
            (0..9).for_each(|_| latencies.add(Duration::from_millis(milliseconds)));
            latencies
        };
        let rows = rows(&latencies(2), &latencies(5), 1.5);
        assert!((rows[2].value - 3.0).abs() < 1e-9);
        assert_eq!(rows[2].share(), Some(2.0));
    }
}
