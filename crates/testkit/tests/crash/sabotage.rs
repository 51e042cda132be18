//! The harness itself: a relay that answers before the commit is found out, and only because it is killed.
//!
//! The double is this test binary, started again: see [`relay_process`].

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation_proto::{ServerName, SystemClock, Timestamp};
use restante_mailbox::{
    Accounts, Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due,
    DuplicateKey, EntryId, Expired, Loss, MailName, MailboxStore, MailboxSummary, Page, Quotas,
    SqliteStore, StoreError, Whereabouts,
};
use restante_relay::{Relay, RelayConfig, Stores};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::relay::{Deaths, live, live_in_peace};
use crate::victim::Recipe;

/// Names the data folder to the process that is to be a relay.
const DATA: &str = "RESTANTE_TEST_SABOTAGE_DATA";
/// Whether it answers too early.
const HASTE: &str = "RESTANTE_TEST_SABOTAGE_HASTE";
const HASTY: &str = "hasty";

/// Kills until a relay that answers too early has to be found out. Most lives give it away.
const KILLS: usize = 12;

/// Calls of a life that ends in peace.
const CALLS_IN_PEACE: usize = 400;

/// Calls that show it: a deposit, and a collect without it.
const STORY_CALLS_MAX: usize = 10;

const SEED: u64 = 1;

/// Work that may wait for the disk.
const WAITING_MAX: usize = 10_000;

/// A store that answers before it has stored. As long as it lives nobody sees it: whoever looks has to wait until all is done.
struct HastyStore {
    inner: Arc<SqliteStore>,
    haste: Haste,
    work: mpsc::Sender<Work>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    Hasty,
    Patient,
}

enum Work {
    Deposit(Box<Deposit>, Quotas),
    Nothing(oneshot::Sender<()>),
}

impl HastyStore {
    fn open(path: &Path, haste: Haste) -> Self {
        let inner = Arc::new(SqliteStore::open(path).unwrap());
        let (work, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(do_in_turn(inner.clone(), waiting));
        Self { inner, haste, work }
    }

    async fn put_off(&self, work: Work) {
        assert!(self.work.send(work).await.is_ok(), "the worker lives as long as the store");
    }

    async fn until_all_is_done(&self) {
        let (done, wait) = oneshot::channel();
        self.put_off(Work::Nothing(done)).await;
        wait.await.unwrap();
    }
}

async fn do_in_turn(store: Arc<SqliteStore>, mut waiting: mpsc::Receiver<Work>) {
    while let Some(work) = waiting.recv().await {
        match work {
            Work::Deposit(deposit, quotas) => {
                store.deposit(*deposit, quotas).await.unwrap();
            }
            Work::Nothing(done) => drop(done.send(())),
        }
    }
}

#[async_trait]
impl MailboxStore for HastyStore {
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError> {
        if self.haste == Haste::Hasty {
            self.put_off(Work::Deposit(Box::new(deposit), quotas)).await;
            return Ok(Deposited::Stored(EntryId::MAX));
        }
        self.until_all_is_done().await;
        self.inner.deposit(deposit, quotas).await
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        self.until_all_is_done().await;
        self.inner.collect(recipient, after, page).await
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        self.until_all_is_done().await;
        self.inner.acknowledge(recipient, acknowledgements).await
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        self.until_all_is_done().await;
        self.inner.depth(recipient).await
    }

    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError> {
        self.inner.expire(due, batch_max).await
    }

    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError> {
        self.inner.losses(recipient).await
    }

    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        self.inner.standing(recipient).await
    }

    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.forget_losses(recipient, until).await
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        self.inner.list(after, limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }
}

#[async_trait]
impl Accounts for HastyStore {
    async fn whereabouts(
        &self,
        mail: &[(ServerName, MailName)],
        now: Timestamp,
    ) -> Result<Vec<Whereabouts>, StoreError> {
        self.until_all_is_done().await;
        self.inner.whereabouts(mail, now).await
    }

    async fn acknowledge_copies(
        &self,
        recipient: &ServerName,
        copies: &[DuplicateKey],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        self.until_all_is_done().await;
        self.inner.acknowledge_copies(recipient, copies, now).await
    }
}

#[tokio::test]
#[ignore = "not a test: others start it as a process to be killed"]
async fn relay_process() {
    let (Ok(data), Ok(haste)) = (std::env::var(DATA), std::env::var(HASTE)) else { return };
    let haste = if haste == HASTY { Haste::Hasty } else { Haste::Patient };
    let mut config = RelayConfig { data: data.into(), ..RelayConfig::default() };
    config.listen = ([127, 0, 0, 1], 0).into();
    config.operators.listen = config.listen;
    config.federation.dns = DnsSection::Word(DnsWord::Off);
    std::fs::create_dir_all(&config.data).unwrap();
    let store = Arc::new(HastyStore::open(&config.data.join("relay.sqlite"), haste));
    let shutdown = CancellationToken::new();
    let stores =
        Stores { mail: store.clone(), accounts: store.clone(), ..Stores::of(store.inner.clone()) };
    let relay = Relay::start_with_stores(config, stores, Arc::new(SystemClock), shutdown.clone());
    let relay = relay.await.unwrap();
    // In front of the first line stands what the test harness prints.
    println!("\nserver name {}", relay.server_name());
    println!("listening on http://{}", relay.local_address());
    // The end of its input says that whoever started it is gone.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        shutdown.cancel();
    });
    relay.run().await;
}

fn double(folder: &Path, haste: Haste) -> Recipe {
    let haste = if haste == Haste::Hasty { HASTY } else { "" };
    let mut arguments = vec![
        format!("{DATA}={}", folder.join("data").display()).into(),
        format!("{HASTE}={haste}").into(),
        std::env::current_exe().unwrap().into_os_string(),
    ];
    let process = ["sabotage::relay_process", "--exact", "--ignored", "--nocapture"];
    arguments.extend(process.map(Into::into));
    Recipe::of("/usr/bin/env".into(), arguments, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_answers_before_the_commit_is_found_out_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let double = double(folder.path(), Haste::Hasty);
    let judged = live(double, SEED, KILLS, &mut Deaths::default()).await;
    let failure = judged.expect_err("it loses mail");
    println!("{failure}");
    let story = failure.to_string();
    // What was lost and left again has another place as well: which of the two is told is a matter of chance.
    let is_told = ["is lost", "was left before"].iter().any(|told| story.contains(told));
    assert!(is_told && failure.story.len() < STORY_CALLS_MAX, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_found_out_as_long_as_it_lives() {
    let folder = tempfile::tempdir().unwrap();
    let double = double(folder.path(), Haste::Hasty);
    let held = live_in_peace(double, SEED, CALLS_IN_PEACE).await;
    let held = held.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(held.deposits > CALLS_IN_PEACE / 5, "{held}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_double_without_the_haste_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let double = double(folder.path(), Haste::Patient);
    let held = live(double, SEED, KILLS, &mut Deaths::default()).await;
    let held = held.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(held.deposits > KILLS, "{held}");
}
