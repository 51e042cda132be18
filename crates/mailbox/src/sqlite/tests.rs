//! What only a store on a disk has to keep.

mod at_rest;
mod backup;
mod bit_flips;
mod call;
mod disk_faults;
mod full_disk;
mod handing_on;
mod lapsing;
mod power_loss;
mod trial;
mod upgrade;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    AdmittedBy, Condition, ContentHash, Custody as _, Lapse, LeftMail, MailboxLimits, Onward,
    Outgoing, Registration, Registry as _, Resealed, Selection, Senders, Upkeep as _, conformance,
};

const ROOMY: Quotas =
    Quotas::of_mailboxes(MailboxLimits { envelopes_max: 1000, bytes_max: 64 << 20 });
const EVERYTHING: Page = Page { envelopes_max: 1000, bytes_max: usize::MAX };

struct Folder {
    folder: TempDir,
    stores: AtomicUsize,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), stores: AtomicUsize::new(0) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("relay.sqlite")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path()).unwrap()
    }

    fn another(&self) -> conformance::Store {
        let number = self.stores.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}.sqlite"));
        Arc::new(SqliteStore::open(&path).unwrap())
    }

    /// Changes the stored row of one envelope behind the store's back.
    fn damage(&self, id: EntryId, change: &str) {
        let outside = Connection::open(self.path()).unwrap();
        let sql = format!("UPDATE envelopes SET {change} WHERE entry = ?1");
        assert_eq!(outside.execute(&sql, [signed(id.get())]).unwrap(), 1);
    }
}

fn recipient() -> ServerName {
    "b.example".parse().unwrap()
}

fn mail(txn_id: &str) -> Deposit {
    Deposit {
        recipient: recipient(),
        origin: "a.example".parse().unwrap(),
        txn_id: txn_id.to_owned(),
        content_hash: ContentHash([9; 32]),
        content: format!(r#"{{"pdus":[],"note":"{}"}}"#, txn_id.repeat(300)).into(),
        members: Bytes::from_static(br#"{"org.restante.proof":{}}"#),
        deposited_at: Timestamp::from_millis(1000),
        expires_at: Timestamp::from_millis(1001),
        onward: Onward::No,
    }
}

async fn leave(store: &SqliteStore, txn_ids: &[&str]) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for txn_id in txn_ids {
        match store.deposit(mail(txn_id), ROOMY).await.unwrap() {
            Deposited::Stored(id) => ids.push(id),
            other => panic!("not stored: {other:?}"),
        }
    }
    ids
}

async fn collect(store: &SqliteStore) -> (Vec<String>, Vec<EntryId>) {
    let collected = store.collect(&recipient(), None, EVERYTHING).await.unwrap();
    let txn_ids = collected.envelopes.into_iter().map(|envelope| envelope.deposit.txn_id);
    (txn_ids.collect(), collected.quarantined)
}

fn registration(recipient: &str) -> Registration {
    Registration {
        recipient: recipient.parse().unwrap(),
        record: Bytes::from_static(b"{}"),
        senders: Senders::default(),
        time_to_live: None,
        registered_at: Timestamp::EPOCH,
        admitted_by: AdmittedBy::Nobody,
        outgoing: Outgoing::No,
    }
}

/// Of what was heard of, used or lost last before `millis`.
fn lapse_before(millis: u64) -> Lapse {
    let before = Timestamp::from_millis(millis);
    Lapse { called_before: before, unused_before: before, now: before, spared: Arc::new([]) }
}

fn due(millis: u64) -> Due {
    let now = Timestamp::from_millis(millis);
    Due { now, remembered_from: now }
}

async fn summary_of(store: &SqliteStore) -> MailboxSummary {
    store.list(None, 10).await.unwrap().remove(0)
}

async fn acknowledge(store: &SqliteStore, ids: &[EntryId]) -> u64 {
    let named: Vec<_> =
        ids.iter().map(|id| Acknowledgement { id: *id, content_hash: None }).collect();
    store.acknowledge(&recipient(), &named).await.unwrap().removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_every_promise_of_a_store() {
    let folder = Folder::new();
    conformance::run_all(async || folder.another()).await;
}

#[test]
fn behaves_like_the_model_whatever_is_asked() {
    let folder = Folder::new();
    conformance::histories::check(32, || folder.another());
}

#[tokio::test]
async fn a_second_start_finds_everything_again() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3", "4"]).await;
    acknowledge(&store, &ids[..1]).await;
    let before = summary_of(&store).await;
    let held = store.collect(&recipient(), None, EVERYTHING).await.unwrap();
    drop(store);

    let store = folder.open();

    assert_eq!(summary_of(&store).await, before);
    assert_eq!(store.collect(&recipient(), None, EVERYTHING).await.unwrap(), held);
    assert!(matches!(store.deposit(mail("1"), ROOMY).await.unwrap(), Deposited::Duplicate(_)));
    assert!(leave(&store, &["5"]).await[0] > ids[3]);
}

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3"]).await;
    acknowledge(&store, &ids[..1]).await;

    // What a killed process leaves behind: the files as they lie there, without a close.
    let after_crash = Folder::new();
    for extension in ["sqlite", "sqlite-wal"] {
        let lying_there = folder.path().with_extension(extension);
        std::fs::copy(lying_there, after_crash.path().with_extension(extension)).unwrap();
    }
    let restarted = after_crash.open();

    assert_eq!(collect(&restarted).await, (vec!["2".to_owned(), "3".to_owned()], vec![]));
    assert!(matches!(restarted.deposit(mail("1"), ROOMY).await.unwrap(), Deposited::Duplicate(_)));
}

#[tokio::test]
async fn a_damaged_envelope_is_set_aside_and_the_rest_flows() {
    for change in [
        "body = zeroblob(length(body))",
        "body = zeroblob(1000000)",
        "body = x''",
        "checksum = zeroblob(32)",
        "checksum = x''",
        "txn_id = 'other'",
        "txn_id = CAST(x'ff' AS TEXT)",
        "origin = 'not a server name'",
        "content_hash = x'00'",
        "deposited_at = -1",
        "content_bytes = content_bytes - 1, members_bytes = members_bytes + 1",
        "content_bytes = 9223372036854775807",
        "content_bytes = -1",
        "coding = 7",
    ] {
        let folder = Folder::new();
        let store = folder.open();
        let ids = leave(&store, &["1", "2", "3"]).await;
        folder.damage(ids[1], change);

        let (first, second) = (collect(&store).await, collect(&store).await);

        let whole = vec!["1".to_owned(), "3".to_owned()];
        assert_eq!(first, (whole.clone(), vec![ids[1]]), "{change}");
        assert_eq!(second, (whole, vec![]), "{change}");
        let mailbox = summary_of(&store).await;
        assert_eq!((mailbox.depth.count, mailbox.quarantined), (2, 1), "{change}");
        acknowledge(&store, &[ids[0], ids[2]]).await;
        assert_eq!(summary_of(&store).await.depth, Depth::default(), "{change}");
        let expired = store.expire(due(u64::MAX), 10).await.unwrap();
        assert_eq!(expired.envelopes, 1, "{change}");
    }
}

#[tokio::test]
async fn a_page_full_of_damage_does_not_hide_what_lies_behind() {
    let folder = Folder::new();
    let store = folder.open();
    let txn_ids: Vec<_> = (0..600).map(|number| number.to_string()).collect();
    let txn_ids: Vec<_> = txn_ids.iter().map(String::as_str).collect();
    let ids = {
        // Together, so that they share commits.
        let mut leaving = tokio::task::JoinSet::new();
        for txn_id in &txn_ids {
            let (store, deposit) = (store.clone(), mail(txn_id));
            leaving.spawn(async move { store.deposit(deposit, ROOMY).await.unwrap() });
        }
        leaving.join_all().await.len()
    };
    let outside = Connection::open(folder.path()).unwrap();
    let last = "(SELECT max(entry) FROM envelopes)";
    outside
        .execute(&format!("UPDATE envelopes SET checksum = x'' WHERE entry < {last}"), [])
        .unwrap();

    let (whole, quarantined) = collect(&store).await;

    assert_eq!((whole.len(), quarantined.len()), (1, ids - 1));
    let mailbox = summary_of(&store).await;
    assert_eq!((mailbox.depth.count, mailbox.quarantined), (1, 599));
}

#[tokio::test]
async fn a_damaged_envelope_may_be_left_again() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    folder.damage(ids[0], "body = x''");
    collect(&store).await;

    let again = leave(&store, &["1"]).await;

    assert!(again[0] > ids[0]);
    assert_eq!(collect(&store).await, (vec!["1".to_owned()], vec![]));
}

#[tokio::test]
async fn an_envelope_damaged_after_its_owner_had_it_is_acknowledged_and_counted() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    folder.damage(ids[0], "body = x''");
    collect(&store).await;

    assert_eq!(acknowledge(&store, &ids).await, 1);

    let mailbox = summary_of(&store).await;
    assert_eq!((mailbox.quarantined, mailbox.acknowledged_total), (0, 1));
}

#[tokio::test]
async fn a_quarantined_envelope_expires_and_is_counted() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    folder.damage(ids[0], "body = x''");
    collect(&store).await;

    let expired = store.expire(due(2000), 10).await.unwrap();

    assert_eq!(expired, Expired { envelopes: 1, ..Expired::default() });
    let mailbox = summary_of(&store).await;
    assert_eq!((mailbox.quarantined, mailbox.expired_total), (0, 1));
}

#[tokio::test]
async fn more_waiting_bytes_than_fit_are_refused_as_busy() {
    let folder = Folder::new();
    let store = folder.open();
    let all = store.reserve_memory(u64::MAX).unwrap();

    let refused = store.deposit(mail("1"), ROOMY).await;

    assert!(matches!(refused, Err(StoreError::Busy)));
    drop(all);
    leave(&store, &["1"]).await;
    assert_eq!(store.waiting_bytes.available_permits(), WAITING_BYTES_MAX);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.path(), "a letter, ".repeat(500)).unwrap();

    assert!(matches!(SqliteStore::open(&folder.path()), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn no_query_walks_more_than_it_returns() {
    let folder = Folder::new();
    drop(folder.open());
    let outside = Connection::open(folder.path()).unwrap();
    let list = format!("{} WHERE recipient > ?1 ORDER BY recipient LIMIT ?2", summary::SUMMARIES);
    for sql in [
        accounts::HELD,
        copies::FIND,
        copies::IS_REGISTERED,
        deposit::KNOWN,
        deposit::ACKNOWLEDGED,
        deposit::STANDING,
        place::FIND,
        collect::IN_ORDER,
        acknowledge::FIND,
        expire::FORGET,
        expire::DUE,
        expire::PAGE_DUE,
        expire::ONE_DUE,
        summary::OLDEST,
        losses::NAMED,
        losses::OF_MAILBOX,
        losses::FORGET,
        registry::FIND,
        registry::ADMISSION,
        registry::UNREGISTER,
        registry::FORGET_INVITES,
        registry::WITH_HASH,
        custody::WALK,
        custody::DROPPED,
        custody::IS_OF,
        custody::LINE,
        custody::SHARES,
        onward::LOAD,
        onward::IS_DESTINATION,
        onward::DESTINATIONS,
        onward::MARK,
        onward::AWAITED_BY,
        onward::AWAITING,
        onward::IN_ORDER,
        onward::UNMARK,
        onward::IS_PAST,
        onward::FIND,
        onward::REFUSE,
        onward::WITHDRAWN,
        spent::FIRST,
        spent::KEEP,
        reseal::NEXT,
        reseal::WHOLE,
        &list,
        lapse::NOTE_CALL,
        lapse::PAGE,
        lapse::END_REGISTRATION,
        lapse::REMOVE,
        lapse::BEGIN_TO_COUNT,
        lapse::GIVE_UP,
    ] {
        let mut statement = outside.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![1; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let plan = plan.join("; ");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_says_that_it_is_not_well() {
    let folder = Folder::new();
    let store = folder.open();
    store.health().await.unwrap();
    Connection::open(folder.path()).unwrap().execute_batch("DROP TABLE health").unwrap();
    assert!(matches!(store.health().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn looking_for_mail_to_drop_does_not_keep_others_from_writing() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1", "2", "3"]).await;
    let others = Connection::open(folder.path()).unwrap();
    others.execute_batch("BEGIN IMMEDIATE").unwrap();

    let of_nobody = Selection::Origin("nobody.example".parse().unwrap());
    let whose = recipient();
    let dropping = store.drop_mail(&whose, of_nobody, Timestamp::from_millis(9000));
    let dropped = tokio::time::timeout(std::time::Duration::from_secs(60), dropping).await;

    assert_eq!(dropped.expect("it waits for whoever writes").unwrap(), 0);
}

#[tokio::test]
async fn a_mailbox_of_which_nobody_noted_when_it_was_used_counts_as_used_at_the_first_look() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    acknowledge(&store, &ids).await;
    let outside = Connection::open(folder.path()).unwrap();
    assert_eq!(outside.execute("UPDATE mailboxes SET used_at = 0", []).unwrap(), 1);
    let lapsed = async |now: u64| {
        let now = Timestamp::from_millis(now);
        let before = now.before(std::time::Duration::from_secs(5));
        let lapse =
            Lapse { called_before: before, unused_before: before, now, spared: Arc::new([]) };
        store.lapse(&lapse, None, 10).await.unwrap().mailboxes.len()
    };
    assert_eq!([lapsed(10_000).await, lapsed(15_000).await, lapsed(15_001).await], [0, 0, 1]);
}

#[tokio::test]
async fn a_quarantined_envelope_is_listed_and_dropped() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3"]).await;
    folder.damage(ids[1], "origin = CAST(x'ff' AS TEXT)");
    collect(&store).await;

    let lines = store.envelopes(&recipient(), None, 10).await.unwrap();
    let found: Vec<_> = lines.iter().map(|line| (line.id, line.condition)).collect();
    let whole = Condition::Whole;
    assert_eq!(found, [(ids[0], whole), (ids[1], Condition::Quarantined), (ids[2], whole)]);
    let page = store.envelopes(&recipient(), None, 2).await.unwrap();
    assert_eq!(page, lines[..2]);
    let one = Selection::Envelope(ids[1]);
    let dropped = store.drop_mail(&recipient(), one, Timestamp::from_millis(9000)).await.unwrap();
    assert_eq!(dropped, 1);
    let lost = store.losses(&recipient()).await.unwrap();
    assert_eq!((lost.len(), lost[0].origin.clone(), lost[0].count), (1, None, 1));
    assert_eq!(summary_of(&store).await.quarantined, 0);
    assert_eq!(store.totals().await.unwrap().quarantined, 0);
}

#[tokio::test]
async fn counters_are_right_again_when_a_mailbox_with_damage_is_empty() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2"]).await;
    // Not noticed before it leaves: neither its origin nor its size is what was counted.
    folder.damage(ids[0], "origin = 'z.example', content_bytes = 5");

    acknowledge(&store, &ids).await;

    assert_eq!(summary_of(&store).await.depth, Depth::default());
    assert_eq!(store.shares(&recipient(), None, 10).await.unwrap(), []);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.envelopes, totals.bytes), (0, 0));
}
