//! What honest clients get while strangers flood the relay, beside what they get without, in turns.

mod kinds;

use std::path::Path;
use std::time::Duration;

use crate::honest::{HonestClients, Served};
use crate::process::RelayProcess;
use crate::table;
use kinds::Flood;

/// Turns with a flood, each after one without.
const TURNS: usize = 2;

/// How long a flood runs before honest clients are timed: it is to be at its height.
const HEAD_START: Duration = Duration::from_secs(1);

/// Runs every flood against a relay of its own and prints the table.
pub(crate) async fn run(program: &Path, seconds: u64) -> anyhow::Result<()> {
    let time = Duration::from_secs(seconds);
    let mut rows = Vec::new();
    for flood in Flood::ALL {
        let row = measure(program, flood, time).await?;
        println!("{}: done", flood.name());
        rows.push(row);
    }
    println!();
    println!(
        "Honest clients leave 4 KiB transactions with a pause after each; load and relay share the machine."
    );
    table::print(
        &[
            "flood",
            "alone/s",
            "during/s",
            "share",
            "p99 alone ms",
            "p99 during ms",
            "refused",
            "flood/s",
            "MiB",
        ],
        &rows,
    );
    Ok(())
}

async fn measure(program: &Path, flood: Flood, time: Duration) -> anyhow::Result<Vec<String>> {
    let relay = RelayProcess::start(program, flood.config()?).await?;
    let honest = HonestClients::new();
    // Not timed: connections, the recipient's mailbox and the page cache come into being.
    honest.send_for(&relay, HEAD_START).await?;
    let (mut alone, mut during) = (Served::default(), Served::default());
    let (mut attempts, mut memory) = (0.0, 0.0_f64);
    for _ in 0..TURNS {
        alone.add(honest.send_for(&relay, time).await?);
        let running = flood.start(&relay).await?;
        tokio::time::sleep(HEAD_START).await;
        during.add(honest.send_for(&relay, time).await?);
        memory = memory.max(relay.memory_mib()?);
        attempts += running.stop().await as f64;
    }
    let flooded = (time + HEAD_START).as_secs_f64() * TURNS as f64;
    Ok(vec![
        flood.name().to_owned(),
        format!("{:.0}", alone.rate()),
        format!("{:.0}", during.rate()),
        format!("{:.0} %", 100.0 * during.rate() / alone.rate()),
        format!("{:.1}", alone.latency_ms(0.99)),
        format!("{:.1}", during.latency_ms(0.99)),
        during.refused().to_string(),
        format!("{:.0}", attempts / flooded),
        format!("{memory:.0}"),
    ])
}
