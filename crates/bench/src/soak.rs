//! Mixed load for a long time, with mail that is acknowledged and mail that expires: whether memory, latency and disk stay as
//! they are.

mod minutes;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use rand::RngExt as _;
use restante_federation_proto::ServerName;

use crate::collectors::{Collector, Collectors};
use crate::drive::open_loop;
use crate::mail::{Beside, strangers};
use crate::numbers::Latencies;
use crate::owner::Owner;
use crate::stage::{self, Stage};
use minutes::Minute;

/// Owners who collect and acknowledge.
const OWNERS: usize = 16;

/// Mailboxes whose mail expires.
const ABANDONED: usize = 1000;

/// Connections that deposits come over; new ones each second, as callers come and go.
const CONNECTIONS: usize = 32;

/// Bodies, bytes: small and large ones as homeservers send them.
const BODIES: [usize; 8] = [1024, 1024, 1024, 4096, 4096, 4096, 16 * 1024, 64 * 1024];

/// How long a collect waits.
const WAIT_MS: u64 = 1000;

const MINUTE: Duration = Duration::from_secs(60);

/// How long, and how much.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// Minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Deposits a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..))]
    rate: u32,
    /// Seconds that mail is kept
    #[arg(long, default_value_t = 120)]
    time_to_live: u32,
}

/// Lets it run, prints each minute, and says at the end what was flat.
pub(crate) async fn run(program: &Path, soak: &Soak) -> anyhow::Result<()> {
    let mut config = stage::config()?;
    let kept = toml::Value::from(format!("{}s", soak.time_to_live));
    if let Some(mailbox) = config.get_mut("mailbox").and_then(toml::Value::as_table_mut) {
        mailbox.insert("time_to_live".to_owned(), kept);
    }
    let stage = Stage::open_with(program, config).await?;
    let owners: Vec<_> =
        (0..OWNERS).map(|_| Collector::of(Owner::at(&stage.relay.server_name))).collect();
    let mut mailboxes: Vec<_> = owners.iter().map(|one| one.owner.name().clone()).collect();
    let abandoned = strangers(ABANDONED);
    let collecting = Collectors::start(owners, stage.relay.address, WAIT_MS);
    println!("{}", minutes::HEAD);
    let (began, mut minutes) = (Instant::now(), Vec::new());
    while began.elapsed() < MINUTE.mul_f64(soak.minutes) {
        mailboxes.truncate(OWNERS);
        mailboxes.extend(some_of(&abandoned));
        let minute = minute(&stage, soak, &mailboxes, began).await?;
        println!("{}", minute.line());
        minutes.push(minute);
    }
    let (collected, _) = collecting.stop().await?;
    println!();
    println!(
        "{} deposits a second of 1 to 64 KiB; {collected} were collected and acknowledged, the others expired after {} s.",
        soak.rate, soak.time_to_live
    );
    minutes::print_flatness(&minutes);
    Ok(())
}

/// As many as there are owners: half of the mail expires.
fn some_of(abandoned: &[ServerName]) -> impl Iterator<Item = ServerName> {
    let mut rng = rand::rng();
    (0..OWNERS).map(move |_| abandoned[rng.random_range(0..abandoned.len())].clone())
}

/// Leaves mail at the rate for a minute, or for as long as is left.
async fn minute(
    stage: &Stage,
    soak: &Soak,
    mailboxes: &[ServerName],
    began: Instant,
) -> anyhow::Result<Minute> {
    let until = MINUTE.mul_f64(soak.minutes).min(began.elapsed() + MINUTE);
    let (from, mut latencies) = (Instant::now(), Latencies::default());
    let mut rng = rand::rng();
    while latencies.count() == 0 || began.elapsed() < until {
        // Signed a second at a time: mail that was signed before it would have expired by now is refused.
        let bytes = BODIES[rng.random_range(0..BODIES.len())];
        let (count, rate) = (soak.rate as usize, f64::from(soak.rate));
        let deposits = stage.writers.deposits(count, bytes, mailboxes, Beside::Nothing)?;
        let answered = open_loop(stage.relay.address, CONNECTIONS, &deposits, rate).await?;
        latencies.append(answered.latencies);
    }
    let took = from.elapsed();
    Minute::of(&stage.relay, &latencies, took)
}
