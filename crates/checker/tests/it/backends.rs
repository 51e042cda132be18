//! The load against a relay in this process, on every backend.

use std::path::Path;
use std::sync::Arc;

use restante_checker::{Allowance, Load, LoadPlan, verdict};
use restante_federation::Peer;
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation_proto::SystemClock;
use restante_mailbox::{MemoryStore, SqliteStore};
use restante_relay::{Relay, RelayConfig, Stores};
use tokio_util::sync::CancellationToken;

const SEED: u64 = 20;
const CALLS: usize = 800;

async fn hold_to_its_promises(folder: &Path, stores: Stores) {
    let mut config = RelayConfig { data: folder.join("data"), ..RelayConfig::default() };
    config.listen = ([127, 0, 0, 1], 0).into();
    config.operators.listen = config.listen;
    config.federation.dns = DnsSection::Word(DnsWord::Off);
    let (clock, shutdown) = (Arc::new(SystemClock), CancellationToken::new());
    let relay = Relay::start_with_stores(config, stores, clock.clone(), shutdown.clone());
    let relay = relay.await.unwrap();
    let url = format!("http://{}", relay.local_address()).parse().unwrap();
    let peer = Peer::new(relay.server_name().clone(), Some(url));
    let running = tokio::spawn(relay.run());

    let load = Load::new(LoadPlan::with_seed(SEED), clock).unwrap();
    load.point_at(peer.clone());
    load.run(CALLS).await;
    load.audit(&peer).await;
    load.drain(&peer).await;
    shutdown.cancel();
    running.await.unwrap();

    let summary = verdict(&load.recorder().history(), &Allowance::default());
    let summary = summary.unwrap_or_else(|failure| panic!("seed {SEED}: {failure}"));
    println!("{summary}");
    assert!(summary.deposits > CALLS / 5 && summary.acknowledgements > CALLS / 10, "{summary}");
    assert!(summary.had > CALLS / 50, "{summary}");
    assert!(summary.refused.is_empty() && summary.lost == 0 && summary.malformed > 0, "{summary}");
}

#[tokio::test]
async fn the_memory_backend_holds_every_promise_under_load() {
    let folder = tempfile::tempdir().unwrap();
    hold_to_its_promises(folder.path(), Stores::of(Arc::new(MemoryStore::new()))).await;
}

#[tokio::test]
async fn the_sqlite_backend_holds_every_promise_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("relay.sqlite")).unwrap();
    hold_to_its_promises(folder.path(), Stores::of(Arc::new(store))).await;
}
