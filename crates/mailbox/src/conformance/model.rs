//! Random histories, compared step by step with a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use restante_federation_proto::{ServerName, Timestamp};

use super::Store;
use super::fixtures::{hash, server};
use crate::{
    Acknowledged, Acknowledgement, ContentHash, Deposit, Deposited, Depth, EntryId, Expired,
    MailboxLimits, Page, StoredEnvelope,
};

const LIMITS: MailboxLimits = MailboxLimits { envelopes_max: 6, bytes_max: 120 };
const STEPS_MAX: usize = 40;
const RECIPIENTS: [&str; 3] = ["a.example", "b.example", "c.example"];

/// Tries `histories` random ones, each on an empty store of its own; shrinks what fails.
pub fn check(histories: u32, make: impl Fn(MailboxLimits) -> Store) {
    let config = Config { cases: histories, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let history = proptest::collection::vec(step(), 1..STEPS_MAX);
    TestRunner::new(config)
        .run(&history, |steps| {
            runtime.block_on(replay(make(LIMITS), steps));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[derive(Debug, Clone)]
enum Step {
    Deposit { mail: Mail, age: u64 },
    Collect { recipient: usize, after: Option<usize>, page: (usize, usize) },
    Acknowledge { recipient: usize, chosen: Vec<(usize, Hash)> },
    Expire { age: u64, batch_max: usize },
}

/// Few enough values that mail is often left again.
#[derive(Debug, Clone)]
struct Mail {
    recipient: usize,
    origin: usize,
    txn_id: u8,
    content_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Hash {
    Omitted,
    Right,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let recipient = 0..RECIPIENTS.len();
    let mail = (recipient.clone(), 0..2_usize, 0..4_u8, prop_oneof![Just(0_usize), 1..50_usize])
        .prop_map(|(recipient, origin, txn_id, content_bytes)| Mail {
            recipient,
            origin,
            txn_id,
            content_bytes,
        });
    let hash =
        prop_oneof![2 => Just(Hash::Omitted), 2 => Just(Hash::Right), 1 => Just(Hash::Wrong)];
    let chosen = proptest::collection::vec((0..12_usize, hash), 0..4);
    prop_oneof![
        5 => (mail, 0..20_u64).prop_map(|(mail, age)| Step::Deposit { mail, age }),
        2 => (recipient.clone(), proptest::option::of(0..12_usize), (0..5_usize, 0..150_usize))
            .prop_map(|(recipient, after, page)| Step::Collect { recipient, after, page }),
        2 => (recipient, chosen)
            .prop_map(|(recipient, chosen)| Step::Acknowledge { recipient, chosen }),
        1 => (0..20_u64, 0..4_usize)
            .prop_map(|(age, batch_max)| Step::Expire { age, batch_max }),
    ]
}

async fn replay(store: Store, steps: Vec<Step>) {
    let mut model = Model::default();
    for (number, step) in (0_u64..).zip(steps) {
        match step {
            Step::Deposit { mail, age } => model.deposit(&store, mail.at(age, number)).await,
            Step::Collect { recipient, after, page } => {
                let after = after.and_then(|choice| model.id(choice));
                let page = Page { envelopes_max: page.0, bytes_max: page.1 };
                model.collect(&store, &server(RECIPIENTS[recipient]), after, page).await;
            }
            Step::Acknowledge { recipient, chosen } => {
                let named: Vec<_> = chosen
                    .iter()
                    .filter_map(|(choice, hash)| model.named(*choice, *hash))
                    .collect();
                model.acknowledge(&store, &server(RECIPIENTS[recipient]), &named).await;
            }
            Step::Expire { age, batch_max } => model.expire(&store, time(age, 0), batch_max).await,
        }
        model.compare_summaries(&store).await;
    }
}

/// No two deposits are of the same time, so that "oldest first" has one answer.
fn time(age: u64, number: u64) -> Timestamp {
    Timestamp::from_millis((age + 1) * 1000 + number)
}

impl Mail {
    fn at(self, age: u64, number: u64) -> Deposit {
        let content = vec![b'a' + self.txn_id; self.content_bytes];
        Deposit {
            recipient: server(RECIPIENTS[self.recipient]),
            origin: server(["x.example", "y.example"][self.origin]),
            txn_id: self.txn_id.to_string(),
            content_hash: hash(&content),
            members: content[..content.len() / 2].to_vec().into(),
            content: content.into(),
            deposited_at: time(age, number),
        }
    }
}

type Key = (ServerName, ServerName, String, ContentHash);

fn key(deposit: &Deposit) -> Key {
    let Deposit { recipient, origin, txn_id, content_hash, .. } = deposit;
    (recipient.clone(), origin.clone(), txn_id.clone(), *content_hash)
}

/// Lists, searched from end to end.
#[derive(Default)]
struct Model {
    held: Vec<StoredEnvelope>,
    remembered: Vec<(Timestamp, Key)>,
    ids: Vec<(ServerName, EntryId, ContentHash)>,
    known: BTreeSet<ServerName>,
    acknowledged_total: BTreeMap<ServerName, u64>,
    expired_total: BTreeMap<ServerName, u64>,
}

impl Model {
    fn mailbox(&self, recipient: &ServerName) -> Vec<&StoredEnvelope> {
        self.held.iter().filter(|held| held.deposit.recipient == *recipient).collect()
    }

    /// Some id that was given out once, if there is one.
    fn id(&self, choice: usize) -> Option<EntryId> {
        self.ids.get(choice % self.ids.len().max(1)).map(|(_, id, _)| *id)
    }

    fn named(&self, choice: usize, hash: Hash) -> Option<Acknowledgement> {
        let (_, id, content_hash) = self.ids.get(choice % self.ids.len().max(1))?;
        let content_hash = match hash {
            Hash::Omitted => None,
            Hash::Right => Some(*content_hash),
            Hash::Wrong => Some(ContentHash([0xee; 32])),
        };
        Some(Acknowledgement { id: *id, content_hash })
    }

    async fn deposit(&mut self, store: &Store, deposit: Deposit) {
        let mailbox = self.mailbox(&deposit.recipient);
        let duplicate = mailbox.iter().any(|held| key(&held.deposit) == key(&deposit))
            || self.remembered.iter().any(|(_, known)| *known == key(&deposit));
        let bytes: u64 = mailbox.iter().map(|held| held.deposit.bytes()).sum();
        let full = mailbox.len() as u64 >= LIMITS.envelopes_max
            || bytes + deposit.bytes() > LIMITS.bytes_max;

        let id = match store.deposit(deposit.clone()).await.unwrap() {
            Deposited::Duplicate => return assert!(duplicate, "unknown mail called a duplicate"),
            Deposited::MailboxFull => return assert!(full && !duplicate, "refused with room left"),
            Deposited::Stored(id) => id,
        };
        assert!(!duplicate && !full, "stored what must not be");
        for (recipient, earlier, _) in &self.ids {
            assert!(*recipient != deposit.recipient || *earlier < id, "ids do not ascend");
        }
        self.ids.push((deposit.recipient.clone(), id, deposit.content_hash));
        self.known.insert(deposit.recipient.clone());
        self.held.push(StoredEnvelope { id, deposit });
    }

    async fn collect(
        &self,
        store: &Store,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) {
        let mut expected: Vec<StoredEnvelope> = Vec::new();
        for held in self.mailbox(recipient) {
            if after.is_some_and(|after| held.id <= after) {
                continue;
            }
            let bytes: u64 = expected.iter().map(|taken| taken.deposit.bytes()).sum();
            let fits = bytes + held.deposit.bytes() <= page.bytes_max as u64;
            if expected.len() >= page.envelopes_max || !(expected.is_empty() || fits) {
                break;
            }
            expected.push(held.clone());
        }

        let collected = store.collect(recipient, after, page).await.unwrap();

        assert_eq!(collected.envelopes, expected);
        assert_eq!(collected.quarantined, []);
    }

    async fn acknowledge(
        &mut self,
        store: &Store,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) {
        let named = |held: &StoredEnvelope| {
            held.deposit.recipient == *recipient
                && acknowledgements.iter().any(|named| {
                    named.id == held.id
                        && named.content_hash.is_none_or(|hash| hash == held.deposit.content_hash)
                })
        };
        let (gone, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(named);
        self.held = kept;
        let removed = gone.len() as u64;
        *self.acknowledged_total.entry(recipient.clone()).or_default() += removed;
        self.remembered
            .extend(gone.iter().map(|held| (held.deposit.deposited_at, key(&held.deposit))));

        let acknowledged = store.acknowledge(recipient, acknowledgements).await.unwrap();

        assert_eq!(acknowledged, Acknowledged { removed });
    }

    async fn expire(&mut self, store: &Store, before: Timestamp, batch_max: usize) {
        let mut due: Vec<_> =
            self.held.iter().filter(|held| held.deposit.deposited_at < before).cloned().collect();
        due.sort_by_key(|held| held.deposit.deposited_at);
        due.truncate(batch_max);
        self.held.retain(|held| !due.contains(held));
        for held in &due {
            *self.expired_total.entry(held.deposit.recipient.clone()).or_default() += 1;
        }
        let (mut old, mut young): (Vec<_>, Vec<_>) =
            self.remembered.drain(..).partition(|(at, _)| *at < before);
        old.sort();
        young.extend(old.split_off(batch_max.min(old.len())));
        self.remembered = young;

        let expired = store.expire(before, batch_max).await.unwrap();

        let expected = Expired { envelopes: due.len() as u64, remembered: old.len() as u64 };
        assert_eq!(expired, expected);
    }

    async fn compare_summaries(&self, store: &Store) {
        let listed = store.list(None, 10).await.unwrap();
        let names: Vec<_> = listed.iter().map(|mailbox| &mailbox.recipient).collect();
        assert_eq!(names, self.known.iter().collect::<Vec<_>>());
        for mailbox in &listed {
            let held = self.mailbox(&mailbox.recipient);
            let depth = Depth {
                count: held.len() as u64,
                bytes: held.iter().map(|held| held.deposit.bytes()).sum(),
                oldest_at: held.first().map(|held| held.deposit.deposited_at),
            };
            assert_eq!(mailbox.depth, depth);
            assert_eq!(store.depth(&mailbox.recipient).await.unwrap(), depth);
            assert_eq!(mailbox.quarantined, 0);
            let total = |totals: &BTreeMap<ServerName, u64>| {
                totals.get(&mailbox.recipient).copied().unwrap_or_default()
            };
            assert_eq!(mailbox.acknowledged_total, total(&self.acknowledged_total));
            assert_eq!(mailbox.expired_total, total(&self.expired_total));
        }
    }
}
