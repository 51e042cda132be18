//! Random histories, compared step by step with the model.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use restante_federation_proto::Timestamp;

use super::Store;
use super::fixtures::{TIME_TO_LIVE, hash, losses, server};
use super::model::{Lost, Model, Verdict};
use crate::{
    Acknowledgement, AdmittedBy, ContentHash, Deposit, Deposited, Due, DuplicateKey, EntryId,
    Found, HandedOn, Hold, LeftMail, MailName, MailboxLimits, Onward, OnwardLimits, Outgoing, Page,
    Quotas, Registered, Registration, Selection, Senders, Totals, Withdrawal,
};

const QUOTAS: Quotas = Quotas {
    mailbox: MailboxLimits { envelopes_max: 6, bytes_max: 120 },
    origin: MailboxLimits { envelopes_max: 4, bytes_max: 90 },
    relay: MailboxLimits { envelopes_max: 12, bytes_max: 280 },
    mailboxes_max: 2,
    onward: OnwardLimits {
        origin: MailboxLimits { envelopes_max: 5, bytes_max: 100 },
        destinations_max: 2,
        mailboxes_max: 2,
    },
};
const STEPS_MAX: usize = 40;
const RECIPIENTS: [&str; 3] = ["a.example", "b.example", "c.example"];
const ORIGINS: [&str; 2] = ["x.example", "y.example"];

/// Tries `histories` random ones, each on an empty store of its own; shrinks what fails.
pub fn check(histories: u32, make: impl Fn() -> Store) {
    let config = Config { cases: histories, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let history = proptest::collection::vec(step(), 1..STEPS_MAX);
    TestRunner::new(config)
        .run(&history, |steps| {
            runtime.block_on(replay(make(), steps));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[derive(Debug, Clone)]
enum Step {
    Deposit { mail: Mail, age: u64 },
    Collect { recipient: usize, after: Option<usize>, page: (usize, usize) },
    Acknowledge { recipient: usize, chosen: Vec<(usize, Hash)> },
    Have { recipient: usize, mail: Mail, age: u64 },
    Ask { mail: Mail, age: u64 },
    Expire { age: u64, remembered_age: u64, batch_max: usize },
    Hold { recipient: usize, hold: Hold },
    Drop { recipient: usize, choice: Choice },
    ForgetLosses { recipient: usize },
    Register { recipient: usize },
    HandOn { recipient: usize, choice: usize, way: HandedOn },
    RefuseOnward { recipient: usize, choice: usize },
    Withdraw { mail: Mail },
    Leave { recipient: usize },
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    All,
    Envelope(usize),
    Origin(usize),
}

/// Few enough values that mail is often left again.
#[derive(Debug, Clone)]
struct Mail {
    recipient: usize,
    origin: usize,
    txn_id: u8,
    content_bytes: usize,
    onward: Onward,
}

#[derive(Debug, Clone, Copy)]
enum Hash {
    Omitted,
    Right,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let recipient = 0..RECIPIENTS.len();
    let bytes = prop_oneof![Just(0_usize), 1..50_usize];
    let onward = prop_oneof![2 => Just(Onward::No), 1 => Just(Onward::Wanted)];
    let mail = (recipient.clone(), 0..2_usize, 0..4_u8, bytes, onward).prop_map(
        |(recipient, origin, txn_id, content_bytes, onward)| Mail {
            recipient,
            origin,
            txn_id,
            content_bytes,
            onward,
        },
    );
    let hash =
        prop_oneof![2 => Just(Hash::Omitted), 2 => Just(Hash::Right), 1 => Just(Hash::Wrong)];
    let chosen = proptest::collection::vec((0..12_usize, hash), 0..4);
    let choice = prop_oneof![
        Just(Choice::All),
        (0..12_usize).prop_map(Choice::Envelope),
        (0..2_usize).prop_map(Choice::Origin),
    ];
    let way = prop_oneof![Just(HandedOn::Delivered), Just(HandedOn::PassedOn)];
    prop_oneof![
        5 => (mail.clone(), 0..20_u64).prop_map(|(mail, age)| Step::Deposit { mail, age }),
        2 => (recipient.clone(), proptest::option::of(0..12_usize), (0..5_usize, 0..150_usize))
            .prop_map(|(recipient, after, page)| Step::Collect { recipient, after, page }),
        2 => (recipient.clone(), chosen)
            .prop_map(|(recipient, chosen)| Step::Acknowledge { recipient, chosen }),
        2 => (recipient.clone(), mail.clone(), 0..20_u64)
            .prop_map(|(recipient, mail, age)| Step::Have { recipient, mail, age }),
        1 => (mail.clone(), 0..20_u64).prop_map(|(mail, age)| Step::Ask { mail, age }),
        2 => (0..20_u64, 0..20_u64, 0..4_usize).prop_map(|(age, remembered_age, batch_max)| {
            Step::Expire { age, remembered_age, batch_max }
        }),
        1 => (recipient.clone(), prop_oneof![Just(Hold::Held), Just(Hold::Released)])
            .prop_map(|(recipient, hold)| Step::Hold { recipient, hold }),
        1 => (recipient.clone(), choice)
            .prop_map(|(recipient, choice)| Step::Drop { recipient, choice }),
        1 => recipient.clone().prop_map(|recipient| Step::ForgetLosses { recipient }),
        1 => recipient.clone().prop_map(|recipient| Step::Register { recipient }),
        2 => (recipient.clone(), 0..12_usize, way)
            .prop_map(|(recipient, choice, way)| Step::HandOn { recipient, choice, way }),
        1 => (recipient.clone(), 0..12_usize)
            .prop_map(|(recipient, choice)| Step::RefuseOnward { recipient, choice }),
        1 => mail.prop_map(|mail| Step::Withdraw { mail }),
        1 => recipient.prop_map(|recipient| Step::Leave { recipient }),
    ]
}

async fn replay(store: Store, steps: Vec<Step>) {
    let mut model = Model::default();
    for (number, step) in (0_u64..).zip(steps) {
        match step {
            Step::Deposit { mail, age } => {
                deposit(&mut model, &store, mail.at(age, number).0).await;
            }
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
            Step::Have { recipient, mail, age } => {
                let recipient = server(RECIPIENTS[recipient]);
                // One each, so that no two keys are of the same time.
                let copies = [mail.at(age, number).1];
                let keys = [DuplicateKey::named(&recipient, &copies[0])];
                let now = time(age, number);
                let done = store.acknowledge_copies(&recipient, &keys, now).await.unwrap();
                assert_eq!(done, model.acknowledge_copies(&recipient, &copies));
            }
            Step::Ask { mail, age } => {
                let (deposit, name) = mail.at(age, number);
                let now = deposit.deposited_at.after(TIME_TO_LIVE);
                let asked = [(deposit.recipient, name)];
                let found = store.whereabouts(&asked, now).await.unwrap();
                assert_eq!(found, [model.whereabouts(&asked[0].0, &asked[0].1, now)]);
            }
            Step::Expire { age, remembered_age, batch_max } => {
                let now = time(age, 0).after(TIME_TO_LIVE);
                let due = Due { now, remembered_from: time(remembered_age, 0) };
                let expired = store.expire(due, batch_max).await.unwrap();
                assert_eq!(expired, model.expire(due, batch_max));
            }
            Step::HandOn { recipient, choice, way } => {
                let recipient = server(RECIPIENTS[recipient]);
                if let Some((id, _)) = given_out(&model, choice) {
                    let handed_on = store.hand_on(&recipient, id, way).await.unwrap();
                    assert_eq!(handed_on, model.hand_on(&recipient, id, way));
                }
            }
            Step::RefuseOnward { recipient, choice } => {
                let recipient = server(RECIPIENTS[recipient]);
                if let Some((id, _)) = given_out(&model, choice) {
                    store.refuse_onward(&recipient, id).await.unwrap();
                    model.refuse_onward(&recipient, id);
                }
            }
            Step::Withdraw { mail } => {
                let Deposit { recipient, origin, txn_id, content_hash, .. } = mail.at(0, 0).0;
                let withdrawal = Withdrawal { recipient, txn_id, content_hash };
                let withdrawn =
                    store.withdraw(&origin, std::slice::from_ref(&withdrawal)).await.unwrap();
                assert_eq!(withdrawn, model.withdraw(&origin, &withdrawal));
            }
            command => obey(&mut model, &store, command).await,
        }
        compare(&model, &store).await;
    }
}

async fn obey(model: &mut Model, store: &Store, command: Step) {
    let recipient = |number: usize| server(RECIPIENTS[number]);
    match command {
        Step::Hold { recipient: number, hold } => {
            let found = match hold {
                Hold::Held => store.hold(&recipient(number)).await.unwrap(),
                Hold::Released => store.release(&recipient(number)).await.unwrap(),
            };
            assert_eq!(found == Found::Mailbox, model.set(&recipient(number), hold));
        }
        Step::Drop { recipient: number, choice } => {
            let selection = match choice {
                Choice::All => Selection::All,
                Choice::Envelope(choice) => {
                    let Some((id, _)) = given_out(model, choice) else { return };
                    Selection::Envelope(id)
                }
                Choice::Origin(number) => Selection::Origin(server(ORIGINS[number])),
            };
            let dropped = model.drop_mail(&recipient(number), &selection);
            let done = store.drop_mail(&recipient(number), selection, time(30, 0)).await.unwrap();
            assert_eq!(done, dropped);
        }
        Step::ForgetLosses { recipient: number } => {
            let told = store.losses(&recipient(number)).await.unwrap();
            if let Some(last) = told.iter().map(|loss| loss.until).max() {
                store.forget_losses(&recipient(number), last).await.unwrap();
            }
            model.forget_losses(&recipient(number));
        }
        Step::Register { recipient: number } => {
            let registration = Registration {
                recipient: recipient(number),
                record: bytes::Bytes::from_static(b"{}"),
                senders: Senders::default(),
                time_to_live: None,
                registered_at: time(0, 0),
                admitted_by: AdmittedBy::Nobody,
                outgoing: Outgoing::No,
            };
            store.register(registration, None, time(0, 0)).await.unwrap();
            model.register(&recipient(number));
        }
        Step::Leave { recipient: number } => {
            let left = store.leave(&recipient(number), LeftMail::Drop, time(30, 0)).await.unwrap();
            assert_eq!(left.dropped, model.leave(&recipient(number)));
        }
        _ => unreachable!("played by the caller"),
    }
}

async fn deposit(model: &mut Model, store: &Store, deposit: Deposit) {
    let expected = model.verdict(&deposit, QUOTAS);
    match store.deposit(deposit.clone(), QUOTAS).await.unwrap() {
        Deposited::Stored(id) => {
            assert_eq!(expected, Verdict::Stored);
            model.make_room(&deposit, QUOTAS);
            model.store(id, deposit).unwrap();
        }
        Deposited::Duplicate(_) => {
            assert_eq!(expected, Verdict::Duplicate);
            model.meet(&deposit);
            model.mark_known(&deposit);
        }
        Deposited::Full(full) => {
            assert_eq!(expected, Verdict::Full(full));
            model.turn_away(&deposit, full);
        }
    }
}

async fn compare(model: &Model, store: &Store) {
    let summaries = model.summaries();
    assert_eq!(store.list(None, 10).await.unwrap(), summaries);
    let mut totals = Totals {
        mailboxes: summaries.len() as u64,
        onward_mailboxes: model.onward_mailboxes(),
        ..Totals::default()
    };
    for mailbox in summaries {
        let recipient = &mailbox.recipient;
        assert_eq!(store.depth(recipient).await.unwrap(), mailbox.depth);
        let losses = store.losses(recipient).await.unwrap();
        assert_eq!(store.standing(recipient).await.unwrap(), (mailbox.depth, losses));
        assert_eq!(lost(store, recipient.as_str()).await, model.losses(recipient));
        let shares = store.shares(recipient, None, 10).await.unwrap();
        let shares = shares.into_iter().map(|share| (share.origin, share.envelopes, share.bytes));
        assert_eq!(shares.collect::<Vec<_>>(), model.shares(recipient));
        totals.envelopes += mailbox.depth.count;
        totals.bytes += mailbox.depth.bytes;
        totals.registrations += u64::from(mailbox.registered == Registered::Yes);
        assert_eq!(store.summary(recipient).await.unwrap().as_ref(), Some(&mailbox));
    }
    assert_eq!(store.totals().await.unwrap(), totals);
    compare_onward(model, store).await;
}

async fn compare_onward(model: &Model, store: &Store) {
    assert_eq!(store.awaited_by(None, 10).await.unwrap(), model.awaited_by());
    // About half of what is left in a history is past its time then.
    let now = time(10, 0).after(TIME_TO_LIVE);
    for recipient in RECIPIENTS.map(server) {
        let awaiting = model.awaiting(&recipient, now);
        let origins: Vec<_> = awaiting.iter().map(|(origin, _)| origin.clone()).collect();
        assert_eq!(store.awaiting(&recipient, None, 10).await.unwrap(), origins);
        for (origin, first) in awaiting {
            let found = store.first_onward(&recipient, &origin, now).await.unwrap();
            assert_eq!(found, first);
        }
    }
}

async fn lost(store: &Store, recipient: &str) -> Vec<Lost> {
    let losses = losses(store, recipient).await;
    losses.into_iter().map(|loss| (loss.kind, loss.origin, loss.count, loss.bytes)).collect()
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
    fn at(self, age: u64, number: u64) -> (Deposit, MailName) {
        let content = vec![b'a' + self.txn_id; self.content_bytes];
        let deposit = Deposit {
            recipient: server(RECIPIENTS[self.recipient]),
            origin: server(ORIGINS[self.origin]),
            txn_id: self.txn_id.to_string(),
            content_hash: hash(&content),
            members: content[..content.len() / 2].to_vec().into(),
            content: content.into(),
            deposited_at: time(age, number),
            expires_at: time(age, number).after(TIME_TO_LIVE),
            onward: self.onward,
        };
        let Deposit { origin, txn_id, content_hash, .. } = deposit.clone();
        (deposit, MailName { origin, txn_id, content_hash })
    }
}
