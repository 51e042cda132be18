//! How fast a node that comes back to a full mailbox has all of it durably: without a line between node and relay, and over a
//! slow one, as a share of what the line allows.
//!
//! Relay and node are the built program. The homeserver answers at once and is in no room, so that nothing waits for it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::{Method, StatusCode};
use restante_federation_proto::{Clock as _, SystemClock};
use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::{CollectRequest, CollectResponse};
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::letters::Letters;
use crate::line::{Line, Shape};
use crate::node::{Knows, NodeProcess};
use crate::origin::Origin;
use crate::process::RelayProcess;
use crate::table;

/// Servers that write, each into a room of its own.
const ORIGINS: u64 = 20;

/// Deposits under way at once.
const DEPOSITS: usize = 16;

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(50);

/// A line that carries nothing for so long is a defect.
const STUCK: Duration = Duration::from_secs(60);

/// A megabit a second.
const MEGABIT: u32 = 125_000;

/// Nothing is asked for after this id, but what waits.
const AFTER_ALL: u64 = (1 << 53) - 1;

const CONFIG: &str = r#"
limits = { requests_per_origin_burst = 20000 }
federation = { dns = "off" }
"#;

/// Measures over both lines and prints the table.
pub(crate) async fn run(program: &Path, transactions: u64) -> anyhow::Result<()> {
    let loopback = Shape { bytes_per_second: None, round_trip: Duration::ZERO };
    let slow = Shape { bytes_per_second: Some(MEGABIT), round_trip: Duration::from_millis(300) };
    let rows = [
        drain(program, transactions, ("loopback", loopback)).await?,
        drain(program, transactions, ("300 ms, 1 Mbit/s", slow)).await?,
    ];
    let head = ["line", "transactions/s", "seconds", "MB to the node", "MB from it", "of the line"];
    table::print(&head, &rows);
    Ok(())
}

async fn drain(
    program: &Path,
    transactions: u64,
    (name, shape): (&str, Shape),
) -> anyhow::Result<Vec<String>> {
    let relay = RelayProcess::start(program, toml::from_str(CONFIG)?).await?;
    let owner = Origin::new(Ipv4Addr::new(198, 18, 0, 1));
    leave(&relay, &owner, transactions).await?;
    let line = Line::to(relay.address, shape).await?;
    let _node =
        NodeProcess::start(program, &owner, Knows::Relay(&relay.server_name, line.entrance))
            .await?;
    while line.carried() == [0, 0] {
        tokio::time::sleep(LOOK).await;
    }
    let begun = Instant::now();
    until_empty(&relay, &owner, &line).await?;
    let took = begun.elapsed().as_secs_f64();
    let [from_node, to_node] = line.carried();
    let share = shape.bytes_per_second.map(|rate| to_node as f64 / (f64::from(rate) * took));
    Ok(vec![
        name.to_owned(),
        format!("{:.0}", transactions as f64 / took),
        format!("{took:.1}"),
        format!("{:.2}", to_node as f64 / 1e6),
        format!("{:.2}", from_node as f64 / 1e6),
        share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0)),
    ])
}

/// Leaves mail of all origins in `owner`'s mailbox.
async fn leave(relay: &RelayProcess, owner: &Origin, transactions: u64) -> anyhow::Result<()> {
    let place = |number: u64| Ipv4Addr::new(198, 18, 1, number as u8);
    let letters = (0..ORIGINS).map(|number| Letters::of(Origin::new(place(number))));
    let letters: Arc<[Letters]> = letters.collect();
    let next = Arc::new(AtomicU64::new(0));
    let mut leaving = JoinSet::new();
    for _ in 0..DEPOSITS {
        let mut connection = Connection::open(relay.address).await?;
        let (letters, next) = (letters.clone(), next.clone());
        let (relay, owner) = (relay.server_name.clone(), owner.name.clone());
        leaving.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= transactions {
                    return anyhow::Ok(());
                }
                let writer = &letters[(number % ORIGINS) as usize];
                let deposit = writer.letter(number / ORIGINS, &relay, &owner)?;
                let (status, _) = connection.exchange(deposit).await?;
                ensure!(status == StatusCode::OK, "a deposit got {status}");
            }
        });
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

/// Waits until the relay holds nothing more for `owner`, which looks on another way than over `line`.
async fn until_empty(relay: &RelayProcess, owner: &Origin, line: &Line) -> anyhow::Result<()> {
    let mut connection = Connection::open(relay.address).await?;
    let (mut carried, mut carried_at) = (line.carried(), Instant::now());
    while queued(&mut connection, relay, owner).await? > 0 {
        if line.carried() != carried {
            (carried, carried_at) = (line.carried(), Instant::now());
        }
        ensure!(carried_at.elapsed() < STUCK, "the node does not collect");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn queued(
    connection: &mut Connection,
    relay: &RelayProcess,
    owner: &Origin,
) -> anyhow::Result<u64> {
    let question = CollectRequest {
        after: AFTER_ALL,
        acknowledge: Vec::new(),
        have: Vec::new(),
        limit: 1,
        max_bytes: 1,
        wait_ms: 0,
        heard_until: None,
        signed_at: SystemClock.now(),
    };
    let target = COLLECT.parse().expect("the endpoint's path can be signed");
    let body = question.to_canonical_json().into();
    let request = owner.signed(Method::POST, &target, &relay.server_name, body);
    let (status, body) = connection.exchange(request).await?;
    ensure!(status == StatusCode::OK, "a question about the mailbox got {status}");
    Ok(CollectResponse::parse(&body)?.queued.count)
}
