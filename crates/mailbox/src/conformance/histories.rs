//! Random histories, compared step by step with the model.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use restante_federation_proto::Timestamp;

use super::Store;
use super::fixtures::{hash, server};
use super::model::{Model, Verdict};
use crate::{Acknowledgement, ContentHash, Deposit, Deposited, EntryId, MailboxLimits, Page};

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
    let mut model = Model::new(LIMITS);
    for (number, step) in (0_u64..).zip(steps) {
        match step {
            Step::Deposit { mail, age } => deposit(&mut model, &store, mail.at(age, number)).await,
            Step::Collect { recipient, after, page } => {
                let recipient = server(RECIPIENTS[recipient]);
                let after = after.and_then(|choice| given_out(&model, choice)).map(|(id, _)| id);
                let page = Page { envelopes_max: page.0, bytes_max: page.1 };
                let collected = store.collect(&recipient, after, page).await.unwrap();
                assert_eq!(collected.envelopes, model.page(&recipient, after, page));
                assert_eq!(collected.quarantined, []);
            }
            Step::Acknowledge { recipient, chosen } => {
                let recipient = server(RECIPIENTS[recipient]);
                let named =
                    chosen.iter().filter_map(|(choice, hash)| named(&model, *choice, *hash));
                let named: Vec<_> = named.collect();
                let acknowledged = store.acknowledge(&recipient, &named).await.unwrap();
                assert_eq!(acknowledged, model.acknowledge(&recipient, &named));
            }
            Step::Expire { age, batch_max } => {
                let expired = store.expire(time(age, 0), batch_max).await.unwrap();
                assert_eq!(expired, model.expire(time(age, 0), batch_max));
            }
        }
        compare_summaries(&model, &store).await;
    }
}

async fn deposit(model: &mut Model, store: &Store, deposit: Deposit) {
    let expected = model.verdict(&deposit);
    match store.deposit(deposit.clone()).await.unwrap() {
        Deposited::Stored(id) => {
            assert_eq!(expected, Verdict::Stored);
            model.store(id, deposit).unwrap();
        }
        Deposited::Duplicate => assert_eq!(expected, Verdict::Duplicate),
        Deposited::MailboxFull => assert_eq!(expected, Verdict::MailboxFull),
    }
}

async fn compare_summaries(model: &Model, store: &Store) {
    let summaries = model.summaries();
    assert_eq!(store.list(None, 10).await.unwrap(), summaries);
    for mailbox in summaries {
        assert_eq!(store.depth(&mailbox.recipient).await.unwrap(), mailbox.depth);
    }
}

/// Some id that was given out once, if there is one.
fn given_out(model: &Model, choice: usize) -> Option<(EntryId, ContentHash)> {
    let ids = model.ids();
    ids.get(choice % ids.len().max(1)).map(|(_, id, content_hash)| (*id, *content_hash))
}

fn named(model: &Model, choice: usize, hash: Hash) -> Option<Acknowledgement> {
    let (id, content_hash) = given_out(model, choice)?;
    let content_hash = match hash {
        Hash::Omitted => None,
        Hash::Right => Some(content_hash),
        Hash::Wrong => Some(ContentHash([0xee; 32])),
    };
    Some(Acknowledgement { id, content_hash })
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
