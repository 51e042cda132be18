//! The relay's memory under many idle connections, and under many collects that wait.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::origin::Origin;
use crate::process::RelayProcess;
use crate::table;

const IDLE_CONNECTIONS: usize = 10_000;
const WAITING_COLLECTS: usize = 5_000;

/// How long the collects wait: longer than all of them take to be sent.
const WAIT_MS: u64 = 50_000;

/// For the last of them to be on the relay's list before it is counted.
const SETTLE: Duration = Duration::from_secs(3);

/// An answer with mail has more bytes than this, one without has fewer.
const MAIL_BYTES_MIN: usize = 4000;

/// What the relay may have more than its defaults, so that the crowd fits.
const CONFIG: &str = r#"
limits = { connections_max = 20000, waiting_collects_max = 8192 }
federation = { dns = "off" }
"#;

/// Measures both and prints the table.
pub(crate) async fn run(program: &Path) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let relay = RelayProcess::start(program, toml::from_str(CONFIG)?).await?;
    let empty = relay.memory_mib()?;
    rows.push(vec!["nobody".to_owned(), format!("{empty:.1}"), String::new()]);
    let mut idle = Vec::with_capacity(IDLE_CONNECTIONS);
    for _ in 0..IDLE_CONNECTIONS {
        idle.push(
            TcpStream::connect(relay.address).await.context("cannot open so many connections")?,
        );
    }
    answers(&relay).await?;
    rows.push(row(
        &format!("{IDLE_CONNECTIONS} idle connections"),
        &relay,
        (empty, IDLE_CONNECTIONS),
    )?);
    drop((idle, relay));

    let relay = RelayProcess::start(program, toml::from_str(CONFIG)?).await?;
    let empty = relay.memory_mib()?;
    let owner = Arc::new(stranger(1));
    let mut waiting = wait_for_mail(&relay, owner.clone()).await?;
    rows.push(row(
        &format!("{WAITING_COLLECTS} waiting collects"),
        &relay,
        (empty, WAITING_COLLECTS),
    )?);
    let woken = wake(&relay, &owner, &mut waiting).await?;
    waiting.abort_all();
    table::print(&["crowd", "resident MiB", "KiB each"], &rows);
    println!(
        "mail for one of those who wait reached it after {:.1} ms",
        woken.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn row(
    name: &str,
    relay: &RelayProcess,
    (empty, count): (f64, usize),
) -> anyhow::Result<Vec<String>> {
    let memory = relay.memory_mib()?;
    let each = (memory - empty) * 1024.0 / count as f64;
    Ok(vec![name.to_owned(), format!("{memory:.1}"), format!("{each:.1}")])
}

/// The relay still serves, and has accepted all who came before.
async fn answers(relay: &RelayProcess) -> anyhow::Result<()> {
    let (sender, recipient) = (stranger(0), stranger(1));
    let mut connection = Connection::open(relay.address).await?;
    let (status, _) =
        connection.exchange(sender.deposit(&relay.server_name, &recipient.name)).await?;
    ensure!(status == StatusCode::OK, "a deposit beside the crowd got {status}");
    Ok(())
}

/// A server at one of 65,536 addresses.
fn stranger(number: usize) -> Origin {
    Origin::new(Ipv4Addr::new(198, 18, (number / 256) as u8, (number % 256) as u8))
}

/// When collects were answered with mail; none for those that were not.
type Waiting = JoinSet<Option<Instant>>;

async fn wait_for_mail(relay: &RelayProcess, first: Arc<Origin>) -> anyhow::Result<Waiting> {
    let mut waiting = Waiting::new();
    for number in 0..WAITING_COLLECTS {
        let owner = if number == 0 { first.clone() } else { Arc::new(stranger(number)) };
        let mut connection = Connection::open(relay.address).await?;
        let name = relay.server_name.clone();
        waiting.spawn(async move {
            let request = owner.collect(&name, WAIT_MS);
            let (status, body) = connection.exchange(request).await.ok()?;
            (status == StatusCode::OK && body.len() > MAIL_BYTES_MIN).then(Instant::now)
        });
    }
    // Whoever is answered at once did not find a place.
    tokio::time::sleep(SETTLE).await;
    ensure!(waiting.try_join_next().is_none(), "not every collect waits");
    Ok(waiting)
}

/// How long mail for `owner`, who waits, is under way.
async fn wake(
    relay: &RelayProcess,
    owner: &Origin,
    waiting: &mut Waiting,
) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(relay.address).await?;
    let deposit = stranger(0).deposit(&relay.server_name, &owner.name);
    let sent = Instant::now();
    let (status, _) = connection.exchange(deposit).await?;
    ensure!(status == StatusCode::OK, "a deposit beside the crowd got {status}");
    let answered = waiting.join_next().await.context("somebody waits")??;
    let answered = answered.context("a collect was answered without mail")?;
    Ok(answered.saturating_duration_since(sent))
}
