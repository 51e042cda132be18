//! Measures what a mailbox with a million envelopes costs: to deposit, collect, acknowledge, list, drop, expire and back up.
//!
//! `cargo run --release -p restante-mailbox --example million [ENVELOPES] [FOLDER]`; a million take 2 GB.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    Acknowledgement, ContentHash, Custody as _, Deposit, Deposited, Due, EntryId, MailboxLimits,
    MailboxStore as _, Onward, OnwardLimits, Page, Quotas, Selection, SqliteStore, Upkeep as _,
};
use tokio::task::JoinSet;

const ENVELOPES: usize = 1_000_000;

/// Bytes of an envelope: two or three events.
const BODY_BYTES: usize = 1024;

/// Deposits under way at once, so that they share commits.
const CALLERS: usize = 128;

/// Origins that fill the mailbox.
const ORIGINS: usize = 1000;

/// Times that each call is measured.
const REPETITIONS: u32 = 20;

/// Acknowledgements in one call, as many as a collect may bring.
const PAGE: Page = Page { envelopes_max: 50, bytes_max: 1 << 20 };

/// Counted all the same: every bound is checked.
const QUOTAS: Quotas = Quotas {
    mailbox: MailboxLimits { envelopes_max: u64::MAX >> 1, bytes_max: u64::MAX >> 1 },
    origin: MailboxLimits { envelopes_max: u64::MAX >> 1, bytes_max: u64::MAX >> 1 },
    relay: MailboxLimits { envelopes_max: u64::MAX >> 1, bytes_max: u64::MAX >> 1 },
    mailboxes_max: u64::MAX,
    onward: OnwardLimits::UNBOUNDED,
};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let envelopes = arguments.next().map_or(ENVELOPES, |count| count.parse().expect("a number"));
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder for the database");
    let path = folder.path().join("relay.sqlite");
    let store = SqliteStore::open(&path).expect("opens");

    let tenth = (envelopes / 10).max(1);
    fill(&store, 0, tenth, "the first tenth of the deposits").await;
    fill(&store, tenth, envelopes - tenth, "the deposits between").await;
    fill(&store, envelopes - tenth, envelopes, "the last tenth of the deposits").await;
    look(&store).await;
    take(&store).await;
    operate(&store, &folder.path().join("copy.sqlite")).await;
    let started = Instant::now();
    drop(store);
    report("close", started.elapsed(), 1);
    let started = Instant::now();
    let store = SqliteStore::open(&path).expect("opens");
    report("open", started.elapsed(), 1);
    remove(&store).await;
}

fn recipient() -> ServerName {
    "b.example".parse().expect("a server name")
}

fn report(what: &str, elapsed: Duration, calls: u32) {
    let each = elapsed / calls.max(1);
    println!("{what}: {:.3} ms", each.as_secs_f64() * 1000.0);
}

async fn fill(store: &SqliteStore, from: usize, to: usize, what: &str) {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let store = store.clone();
        callers.spawn(async move {
            for number in (from + caller..to).step_by(CALLERS) {
                let deposited = store.deposit(mail(number), QUOTAS).await.expect("deposits");
                assert!(matches!(deposited, Deposited::Stored(_)));
            }
        });
    }
    callers.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let count = to - from;
    println!("{what}: {count} in {seconds:.1} s, {:.0} per second", count as f64 / seconds);
}

/// What only reads.
async fn look(store: &SqliteStore) {
    let recipient = recipient();
    let first = store.collect(&recipient, None, PAGE).await.expect("collects").envelopes[0].id;
    let count = store.depth(&recipient).await.expect("tells").count;
    let middle = EntryId::new(first.get() + count / 2);
    for (what, after) in
        [("collect 50 from the beginning", None), ("collect 50 from the middle", middle)]
    {
        let started = Instant::now();
        for _ in 0..REPETITIONS {
            let collected = store.collect(&recipient, after, PAGE).await.expect("collects");
            assert_eq!(collected.envelopes.len(), PAGE.envelopes_max);
        }
        report(what, started.elapsed(), REPETITIONS);
    }
    let started = Instant::now();
    for _ in 0..REPETITIONS {
        store.depth(&recipient).await.expect("tells");
    }
    report("depth", started.elapsed(), REPETITIONS);
    let started = Instant::now();
    for _ in 0..REPETITIONS {
        assert_eq!(store.list(None, 100).await.expect("lists").len(), 1);
    }
    report("list the mailboxes", started.elapsed(), REPETITIONS);
    let started = Instant::now();
    for _ in 0..REPETITIONS {
        let lines = store.envelopes(&recipient, middle, 100).await.expect("lists");
        assert_eq!(lines.len(), 100);
    }
    report("list 100 of its envelopes", started.elapsed(), REPETITIONS);
    let started = Instant::now();
    for _ in 0..REPETITIONS {
        assert_eq!(store.shares(&recipient, None, 100).await.expect("lists").len(), 100);
    }
    report("list the shares of 100 origins", started.elapsed(), REPETITIONS);
}

/// What its owner removes, and one deposit at a time beside it.
async fn take(store: &SqliteStore) {
    let recipient = recipient();
    let mut elapsed = Duration::ZERO;
    for _ in 0..REPETITIONS {
        let collected = store.collect(&recipient, None, PAGE).await.expect("collects");
        let named = collected.envelopes.iter();
        let named = named.map(|held| Acknowledgement {
            id: held.id,
            content_hash: Some(held.deposit.content_hash),
        });
        let named: Vec<_> = named.collect();
        let started = Instant::now();
        let acknowledged = store.acknowledge(&recipient, &named).await.expect("acknowledges");
        elapsed += started.elapsed();
        assert_eq!(acknowledged.removed as usize, named.len());
    }
    report("acknowledge 50", elapsed, REPETITIONS);
    let started = Instant::now();
    for number in 0..REPETITIONS {
        let alone = mail(usize::MAX - number as usize);
        store.deposit(alone, QUOTAS).await.expect("deposits");
    }
    report("deposit one alone", started.elapsed(), REPETITIONS);
}

async fn operate(store: &SqliteStore, copy: &std::path::Path) {
    let started = Instant::now();
    let backup = store.backup(copy).await.expect("copies");
    println!("back up {} MB: {:.1} s", backup.bytes >> 20, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let origin = Selection::Origin(origin(7));
    let now = Timestamp::from_millis(1_700_000_000_000);
    let dropped = store.drop_mail(&recipient(), origin, now).await.expect("drops");
    println!("drop the {dropped} of one origin: {:.1} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    store.hold(&recipient()).await.expect("holds");
    store.release(&recipient()).await.expect("releases");
    report("hold and release", started.elapsed(), 2);
}

async fn remove(store: &SqliteStore) {
    const STEP: usize = 500;
    let end = Timestamp::from_millis(1 << 50);
    let due = Due { now: end, remembered_from: end };
    let (mut expired, mut longest) = (0, Duration::ZERO);
    let started = Instant::now();
    loop {
        let step_started = Instant::now();
        let step = store.expire(due, STEP).await.expect("expires");
        longest = longest.max(step_started.elapsed());
        if step.envelopes == 0 && step.remembered == 0 {
            break;
        }
        expired += step.envelopes;
    }
    println!(
        "expire the other {expired}: {:.1} s in steps of {STEP}, the longest {:.0} ms",
        started.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1000.0
    );
}

fn origin(number: usize) -> ServerName {
    format!("origin-{number}.example").parse().expect("a server name")
}

fn mail(number: usize) -> Deposit {
    let mut content = vec![0; BODY_BYTES];
    rand::fill(&mut content[..]);
    let mut content_hash = [0; 32];
    rand::fill(&mut content_hash[..]);
    let deposited_at = Timestamp::from_millis(1_700_000_000_000 + (number % (1 << 40)) as u64);
    Deposit {
        recipient: recipient(),
        origin: origin(number % ORIGINS),
        txn_id: number.to_string(),
        content_hash: ContentHash(content_hash),
        content: content.into(),
        members: Bytes::new(),
        deposited_at,
        expires_at: deposited_at.after(Duration::from_secs(30 * 24 * 60 * 60)),
        onward: Onward::No,
    }
}
