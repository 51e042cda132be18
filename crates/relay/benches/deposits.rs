//! What durability costs: deposits per second into SQLite, beside the same server with the store taken out.
//!
//! Both relays run in this process and are loaded in turns, so that a noisy machine troubles both alike; only the
//! ratio is worth keeping. Run with `cargo xtask bench deposits`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops where it stands")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation::{
    ClientConfig, Exchange, FederationClient, Identity, Patience, Peer, collect_limited,
    signed_request,
};
use restante_federation_proto::{
    Clock, ServerName, SigningKey, SystemClock, Timestamp, canonicalise,
};
use restante_mailbox::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Loss, MailboxStore, MailboxSummary, MemoryStore, Page, Quotas, SqliteStore, StoreError,
};
use restante_relay::{Relay, RelayConfig, Stores};
use restante_relay_api::endpoints::send_relay_target;
use tokio_util::sync::CancellationToken;

/// Bytes of one transaction's content.
const BODY_BYTES: usize = 4096;

/// Deposits under way at once: enough that commits are shared.
const CONCURRENCY: usize = 64;

/// Deposits in one turn, and turns of each relay.
const DEPOSITS: usize = 6000;
const TURNS: usize = 4;

/// Takes everything and keeps nothing.
#[derive(Default)]
struct NoStore(AtomicU64);

#[async_trait]
impl MailboxStore for NoStore {
    async fn deposit(&self, _: Deposit, _: Quotas) -> Result<Deposited, StoreError> {
        let id = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Deposited::Stored(EntryId::new(id).unwrap()))
    }

    async fn collect(
        &self,
        _: &ServerName,
        _: Option<EntryId>,
        _: Page,
    ) -> Result<Collected, StoreError> {
        Ok(Collected::default())
    }

    async fn acknowledge(
        &self,
        _: &ServerName,
        _: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        Ok(Acknowledged::default())
    }

    async fn depth(&self, _: &ServerName) -> Result<Depth, StoreError> {
        Ok(Depth::default())
    }

    async fn expire(&self, _: Due, _: usize) -> Result<Expired, StoreError> {
        Ok(Expired::default())
    }

    async fn losses(&self, _: &ServerName) -> Result<Vec<Loss>, StoreError> {
        Ok(Vec::new())
    }

    async fn standing(&self, _: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        Ok((Depth::default(), Vec::new()))
    }

    async fn forget_losses(&self, _: &ServerName, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn list(
        &self,
        _: Option<&ServerName>,
        _: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        Ok(Vec::new())
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Subject {
    name: &'static str,
    peer: Peer,
    client: Arc<FederationClient>,
    elapsed: Duration,
    latencies: Vec<Duration>,
    _folder: tempfile::TempDir,
    shutdown: CancellationToken,
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let sqlite = Arc::new(SqliteStore::open(&folder.path().join("relay.sqlite")).unwrap());
    let mut durable = Subject::start("SQLite, fsynced", Stores::of(sqlite), folder).await;
    let other = tempfile::tempdir_in(".").unwrap();
    let none =
        Stores { mail: Arc::new(NoStore::default()), ..Stores::of(Arc::new(MemoryStore::new())) };
    let mut bare = Subject::start("no store", none, other).await;
    for turn in 0..TURNS {
        bare.turn(turn).await;
        durable.turn(turn).await;
    }
    println!(
        "{BODY_BYTES} byte transactions, signed, {CONCURRENCY} at once, {} each, client in the same process",
        DEPOSITS * TURNS
    );
    println!("{:<18} {:>12} {:>12} {:>12}", "store", "deposits/s", "median ms", "p99 ms");
    let (bare_rate, durable_rate) = (bare.report(), durable.report());
    println!(
        "durable deposits reach {:.0} % of the rate without a store",
        100.0 * durable_rate / bare_rate
    );
}

impl Subject {
    async fn start(name: &'static str, stores: Stores, folder: tempfile::TempDir) -> Self {
        let mut config = RelayConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            data: folder.path().to_owned(),
            ..RelayConfig::default()
        };
        config.operators.listen = config.listen;
        config.federation.dns = DnsSection::Word(DnsWord::Off);
        // One server makes the whole load.
        config.limits.requests_per_origin_per_second = NonZeroU32::MAX;
        config.limits.requests_per_origin_burst = NonZeroU32::MAX;
        config.mailbox.envelopes_max = u64::MAX;
        config.mailbox.origin_envelopes_max = u64::MAX;
        let shutdown = CancellationToken::new();
        let clock = Arc::new(SystemClock);
        let relay = Relay::start_with_stores(config, stores, clock.clone(), shutdown.clone())
            .await
            .unwrap();
        let url = format!("http://{}", relay.local_address()).parse().unwrap();
        let peer = Peer::new(relay.server_name().clone(), Some(url));
        tokio::spawn(relay.run());
        let client = Arc::new(FederationClient::new(ClientConfig::default(), clock).unwrap());
        Self {
            name,
            peer,
            client,
            elapsed: Duration::ZERO,
            latencies: Vec::new(),
            _folder: folder,
            shutdown,
        }
    }

    /// Signs first and then sends, so that only the relay's work and the transport are timed.
    async fn turn(&mut self, turn: usize) {
        let batches: Vec<_> = (0..CONCURRENCY).map(|task| self.requests(turn, task)).collect();
        let began = Instant::now();
        let tasks: Vec<_> = batches
            .into_iter()
            .map(|requests| {
                let (client, peer) = (self.client.clone(), self.peer.clone());
                tokio::spawn(async move { send_all(&client, &peer, requests).await })
            })
            .collect();
        for task in tasks {
            self.latencies.extend(task.await.unwrap());
        }
        self.elapsed += began.elapsed();
    }

    fn requests(&self, turn: usize, task: usize) -> Vec<http::Request<restante_federation::Body>> {
        let key = |seed| SigningKey::from_seed("ed25519:auto".parse().unwrap(), &[seed; 32]);
        let signer = key(1);
        let server_name = ServerName::of_key(&signer.public_key());
        let identity = Identity { server_name: server_name.clone(), key: Arc::new(signer) };
        let recipient = ServerName::of_key(&key(2).public_key());
        let now = SystemClock.now().as_millis();
        let requests = (0..DEPOSITS / CONCURRENCY).map(|n| {
            let txn_id = format!("{turn}-{task}-{n}");
            let padding = "x".repeat(BODY_BYTES - 250);
            let body = format!(
                r#"{{"edus":[],"origin":"{server_name}","origin_server_ts":{now},"pdus":[{{"content":{{"body":"{padding}"}},"id":"{txn_id}"}}]}}"#
            );
            let content = Bytes::from(canonicalise(body.as_bytes()).unwrap().into_owned());
            let target = send_relay_target(&txn_id, &recipient);
            signed_request(&identity, Method::PUT, &target, &self.peer.name, Some(content))
        });
        requests.collect()
    }

    fn report(&mut self) -> f64 {
        self.latencies.sort_unstable();
        let latency = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies[index].as_secs_f64() * 1000.0
        };
        let rate = self.latencies.len() as f64 / self.elapsed.as_secs_f64();
        println!("{:<18} {rate:>12.0} {:>12.2} {:>12.2}", self.name, latency(0.5), latency(0.99));
        self.shutdown.cancel();
        rate
    }
}

async fn send_all(
    client: &FederationClient,
    peer: &Peer,
    requests: Vec<http::Request<restante_federation::Body>>,
) -> Vec<Duration> {
    let patience = Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(60) };
    let mut latencies = Vec::with_capacity(requests.len());
    for request in requests {
        let began = Instant::now();
        let response = client.exchange(peer, request, patience).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        collect_limited(response.into_body(), 1 << 16).await.unwrap();
        latencies.push(began.elapsed());
    }
    latencies
}
