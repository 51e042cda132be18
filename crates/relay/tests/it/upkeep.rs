//! What goes on behind the requests: mail expires, and bodies are sealed with the newest key.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use restante_federation_proto::{Clock, SystemClock, Timestamp};
use restante_mailbox::{
    Backup, BackupError, ContentHash, Custody, Deposit, MemoryStore, Resealed, StoreError, Totals,
    Upkeep,
};
use restante_relay::Stores;
use restante_relay_api::Told;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::harness::{TestRelay, TestServer, collect_all};

const PATIENCE: Duration = Duration::from_secs(30);

fn mail(from: &TestServer, to: &TestServer, expires_at: Timestamp) -> Deposit {
    Deposit {
        recipient: to.name().clone(),
        origin: from.name().clone(),
        txn_id: "t".into(),
        content_hash: ContentHash([1; 32]),
        content: Bytes::from_static(b"{}"),
        members: Bytes::new(),
        deposited_at: expires_at.before(Duration::from_hours(1)),
        expires_at,
    }
}

/// What the owner is told, once it is told of something.
async fn told(relay: &TestRelay, owner: &TestServer) -> Told {
    let look = async {
        loop {
            let collected = owner.collect(relay, &collect_all(relay)).await;
            if collected.told.until().is_some() {
                return collected.told;
            }
        }
    };
    timeout(PATIENCE, look).await.expect("nothing is told")
}

#[tokio::test]
async fn mail_past_its_time_leaves_and_its_owner_hears_of_it_unless_the_mailbox_is_held() {
    let store = Arc::new(MemoryStore::new());
    let (a, b, held) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let past = SystemClock.now().before(Duration::from_secs(1));
    store.import(vec![mail(&a, &held, past), mail(&a, &b, past)]).await.unwrap();
    store.hold(held.name()).await.unwrap();
    let relay = TestRelay::start_on(Stores::of(store.clone()), "").await;
    let told = told(&relay, &b).await;
    let [expired] = told.expired.origins.as_slice() else { panic!("{told:?}") };
    assert_eq!((expired.origin.as_ref(), expired.count), (Some(a.name()), 1));
    assert!(store.envelopes(b.name(), None, 10).await.unwrap().is_empty());
    assert_eq!(store.envelopes(held.name(), None, 10).await.unwrap().len(), 1);
}

/// A store with three steps' worth of bodies that are sealed with an old key.
struct OldKeys {
    steps: AtomicU64,
    /// One for each step that was asked for.
    asked: Semaphore,
}

#[async_trait]
impl Upkeep for OldKeys {
    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(Totals::default())
    }

    async fn backup(&self, _: &Path) -> Result<Backup, BackupError> {
        Err(BackupError::InMemory)
    }

    async fn reseal(&self, batch_max: usize) -> Result<Resealed, StoreError> {
        self.asked.add_permits(1);
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let looked_at = if step < 3 { batch_max as u64 } else { 0 };
        Ok(Resealed { looked_at, resealed: looked_at })
    }
}

#[tokio::test]
async fn with_a_key_file_every_body_has_its_turn_to_be_sealed_anew() {
    let old_keys = Arc::new(OldKeys { steps: AtomicU64::new(0), asked: Semaphore::new(0) });
    let stores = Stores { upkeep: old_keys.clone(), ..Stores::of(Arc::new(MemoryStore::new())) };
    let _relay =
        TestRelay::start_on(stores, "[at_rest]\nkey_file = \"read by whoever opens the store\"")
            .await;
    timeout(PATIENCE, old_keys.asked.acquire_many(4))
        .await
        .expect("not all was sealed")
        .unwrap()
        .forget();
}
