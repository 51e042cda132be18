//! Honest clients: servers that leave mail one transaction after the other, each on its own connection.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http::StatusCode;

use crate::connection::Connection;
use crate::origin::Origin;
use crate::process::RelayProcess;

/// Servers that send at once.
const CLIENTS: u8 = 16;

/// How long one client pauses after each answer: together they ask for a part of what the relay can do, as on any day
/// on which nobody floods it.
const PAUSE: Duration = Duration::from_millis(20);

/// Servers whose mail is taken, and their recipient.
pub(crate) struct HonestClients {
    origins: Vec<Arc<Origin>>,
    recipient: Arc<Origin>,
}

/// What they got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    latencies: Vec<Duration>,
    refused: usize,
    elapsed: Duration,
}

impl HonestClients {
    /// Each at an address of its own.
    pub(crate) fn new() -> Self {
        let at = |last| Arc::new(Origin::new(Ipv4Addr::new(198, 51, 100, last)));
        Self { origins: (1..=CLIENTS).map(at).collect(), recipient: at(200) }
    }

    /// Lets them send for `time`.
    pub(crate) async fn send_for(
        &self,
        relay: &RelayProcess,
        time: Duration,
    ) -> anyhow::Result<Served> {
        let began = Instant::now();
        let tasks: Vec<_> = self
            .origins
            .iter()
            .map(|origin| {
                let (origin, recipient) = (origin.clone(), self.recipient.name.clone());
                let (address, name) = (relay.address, relay.server_name.clone());
                tokio::spawn(async move {
                    let mut served = Served::default();
                    let mut connection = Connection::open(address).await?;
                    while began.elapsed() < time {
                        let request = origin.deposit(&name, &recipient);
                        let sent = Instant::now();
                        match connection.exchange(request).await {
                            Ok((StatusCode::OK, _)) => served.latencies.push(sent.elapsed()),
                            Ok(_) => served.refused += 1,
                            Err(_) => {
                                served.refused += 1;
                                connection = Connection::open(address).await?;
                            }
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                    anyhow::Ok(served)
                })
            })
            .collect();
        let mut all = Served::default();
        for task in tasks {
            let served = task.await.context("a client panicked")??;
            all.latencies.extend(served.latencies);
            all.refused += served.refused;
        }
        all.elapsed = began.elapsed();
        if all.latencies.is_empty() {
            bail!("no deposit was taken ({} were refused)", all.refused);
        }
        Ok(all)
    }
}

impl Served {
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.refused += other.refused;
        self.elapsed += other.elapsed;
    }

    /// Deposits that were answered 200, a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Deposits that were refused or broke off.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    /// The latency that `share` of them stayed below, milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    }
}
