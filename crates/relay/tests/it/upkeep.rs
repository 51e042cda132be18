//! What goes on behind the requests: mail expires, and bodies are sealed with the newest key.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use restante_federation_proto::{Clock, SystemClock, Timestamp};
use restante_mailbox::{
    AdmittedBy, Backup, BackupError, ContentHash, Custody, Deposit, MemoryStore, OF_THE_MOMENT,
    Onward, Outgoing, Registration, Registry, Resealed, Senders, StoreError, Totals, Upkeep,
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
        onward: Onward::No,
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
    let typing = Deposit {
        txn_id: "typing".into(),
        deposited_at: past.before(OF_THE_MOMENT),
        ..mail(&a, &b, past)
    };
    store.import(vec![mail(&a, &held, past), mail(&a, &b, past), typing]).await.unwrap();
    store.hold(held.name()).await.unwrap();
    let relay = TestRelay::start_on(Stores::of(store.clone()), "").await;
    let told = told(&relay, &b).await;
    let [expired] = told.expired.origins.as_slice() else { panic!("{told:?}") };
    assert_eq!((expired.origin.as_ref(), expired.count), (Some(a.name()), 1));
    assert!(store.envelopes(b.name(), None, 10).await.unwrap().is_empty());
    assert_eq!(store.envelopes(held.name(), None, 10).await.unwrap().len(), 1);
    let metrics = relay.at_operators(http::Method::GET, "/metrics", "", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in ["restante_relay_expired_total 1", "restante_relay_expired_of_the_moment_total 1"] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn after_a_leap_of_the_clock_mail_still_has_half_an_hour_in_which_the_clock_may_be_set_right()
{
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let last = SystemClock.now().before(Duration::from_hours(31 * 24));
    let due_then = Deposit { txn_id: "due then".into(), ..mail(&a, &b, last.before(PATIENCE)) };
    let due_since = mail(&a, &b, last.after(Duration::from_hours(1)));
    store.import(vec![due_since, due_then]).await.unwrap();
    store.note_expired_to(last).await.unwrap();
    let relay = TestRelay::start_on(Stores::of(store.clone()), "").await;

    told(&relay, &b).await;

    let held = store.envelopes(b.name(), None, 10).await.unwrap();
    assert_eq!(held.iter().map(|line| line.txn_id.as_str()).collect::<Vec<_>>(), ["t"]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(30)).await;
    tokio::time::resume();
    let expired = async {
        while !store.envelopes(b.name(), None, 10).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, expired).await.expect("nothing expires");
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
        Ok(Resealed { looked_at, resealed: looked_at, ..Resealed::default() })
    }

    async fn expired_to(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn note_expired_to(&self, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
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

#[tokio::test]
async fn in_an_open_relay_what_strangers_made_and_left_is_gone_after_the_time_that_is_configured() {
    let store = Arc::new(MemoryStore::new());
    let now = SystemClock.now();
    let register = async |server: &TestServer, days: u64, admitted_by| {
        let at = now.before(Duration::from_hours(24 * days));
        let registration = Registration {
            recipient: server.name().clone(),
            record: Bytes::from_static(b"{}"),
            senders: Senders::default(),
            time_to_live: None,
            registered_at: at,
            admitted_by,
            outgoing: Outgoing::No,
        };
        store.register(registration, None, at).await.unwrap();
    };
    let servers = [1, 2, 3, 4, 5].map(TestServer::new);
    let [silent, lively, guest, listed, with_mail] = &servers;
    register(silent, 31, AdmittedBy::Nobody).await;
    register(lively, 29, AdmittedBy::Nobody).await;
    register(guest, 31, AdmittedBy::Operator).await;
    register(listed, 31, AdmittedBy::Nobody).await;
    register(with_mail, 31, AdmittedBy::Nobody).await;
    let later = now.after(Duration::from_hours(1));
    store.import(vec![mail(guest, with_mail, later)]).await.unwrap();

    let config = format!("listed = [\"{}\"]\n[mailbox]\nlapse_after = \"30d\"", listed.name());
    let relay = TestRelay::start_on(Stores::of(store.clone()), &config).await;

    // Nobody could call while it was off.
    assert_eq!(store.totals().await.unwrap().registrations, 5);
    tokio::time::pause();
    tokio::time::advance(Duration::from_hours(49)).await;
    tokio::time::resume();
    let lapsed = async {
        while store.totals().await.unwrap().registrations > 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, lapsed).await.expect("nothing lapses");
    for (server, is_registered) in servers.iter().zip([false, true, true, true, false]) {
        let registration = store.registration(server.name()).await.unwrap();
        assert_eq!(registration.is_some(), is_registered, "{}", server.name());
    }
    assert_eq!(store.summary(silent.name()).await.unwrap(), None, "its mailbox is gone, too");
    let mailbox = store.summary(with_mail.name()).await.unwrap().unwrap();
    assert_eq!(mailbox.depth.count, 1, "mail stays");
    let metrics = relay.at_operators(http::Method::GET, "/metrics", "", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("restante_relay_registrations_lapsed_total 2\n"), "{metrics}");
    assert!(metrics.contains("restante_relay_mailboxes_removed_total 1\n"), "{metrics}");
    // It comes back as it came first.
    silent.register(&relay, &silent.registration(&relay)).await.assert_ok();
}
