//! Mail that is to be delivered onward.

use super::Store;
use super::fixtures::{
    ROOMY, TIME_TO_LIVE, acknowledge, deposit, expire_deposited_before, held_ids, leave, losses,
    mail, mail_at, mail_of, server, summary, time,
};
use super::registry::registration;
use crate::{
    Deposit, Deposited, EntryId, Full, HandedOn, Known, MailboxLimits, Onward, OnwardLimits,
    Quotas, Withdrawal,
};

const TWO_ENVELOPES: OnwardLimits = OnwardLimits {
    origin: MailboxLimits { envelopes_max: 2, bytes_max: 1 << 20 },
    ..OnwardLimits::UNBOUNDED
};

const TWO_ONWARD: Quotas = Quotas { onward: TWO_ENVELOPES, ..ROOMY };

fn onward(mail: Deposit) -> Deposit {
    Deposit { onward: Onward::Wanted, ..mail }
}

fn from(origin: &str, mail: Deposit) -> Deposit {
    Deposit { origin: server(origin), ..mail }
}

async fn awaited_by(store: &Store) -> Vec<String> {
    let names = store.awaited_by(None, 100).await.unwrap();
    names.iter().map(ToString::to_string).collect()
}

async fn first(store: &Store, recipient: &str, origin: &str) -> Option<EntryId> {
    first_at(store, recipient, origin, 1000).await
}

async fn first_at(store: &Store, recipient: &str, origin: &str, millis: u64) -> Option<EntryId> {
    let first =
        store.first_onward(&server(recipient), &server(origin), time(millis)).await.unwrap();
    first.map(|envelope| envelope.id)
}

fn withdrawal(mail: &Deposit) -> Withdrawal {
    Withdrawal {
        recipient: mail.recipient.clone(),
        txn_id: mail.txn_id.clone(),
        content_hash: mail.content_hash,
    }
}

pub(super) async fn found(store: Store) {
    leave(&store, mail("b.example", "plain")).await;
    let one = leave(&store, onward(mail("b.example", "1"))).await;
    leave(&store, onward(mail("b.example", "2"))).await;
    let other = leave(&store, from("z.example", onward(mail("b.example", "3")))).await;
    leave(&store, onward(mail("d.example", "4"))).await;
    leave(&store, mail("c.example", "5")).await;

    assert_eq!(awaited_by(&store).await, ["b.example", "d.example"]);
    let after = store.awaited_by(Some(&server("b.example")), 100).await.unwrap();
    assert_eq!(after, [server("d.example")]);
    assert_eq!(store.awaited_by(None, 1).await.unwrap(), [server("b.example")]);
    let b = server("b.example");
    let origins = store.awaiting(&b, None, 100).await.unwrap();
    assert_eq!(origins, [server("a.example"), server("z.example")]);
    let after = store.awaiting(&b, Some(&server("a.example")), 100).await.unwrap();
    assert_eq!(after, [server("z.example")]);
    assert_eq!(store.awaiting(&b, None, 1).await.unwrap(), [server("a.example")]);
    assert_eq!(first(&store, "b.example", "a.example").await, Some(one));
    assert_eq!(first(&store, "b.example", "z.example").await, Some(other));
    assert_eq!(first(&store, "c.example", "a.example").await, None);
    let whole = store.first_onward(&b, &server("a.example"), time(1000)).await.unwrap().unwrap();
    assert_eq!(whole.deposit, onward(mail("b.example", "1")));
}

pub(super) async fn handed_on(store: Store) {
    let one = leave(&store, onward(mail("b.example", "1"))).await;
    let two = leave(&store, onward(mail("b.example", "2"))).await;
    let b = server("b.example");

    assert!(store.hand_on(&b, one, HandedOn::Delivered).await.unwrap());
    assert!(!store.hand_on(&b, one, HandedOn::Delivered).await.unwrap());
    assert!(!store.hand_on(&server("c.example"), two, HandedOn::Delivered).await.unwrap());
    assert!(store.hand_on(&b, two, HandedOn::PassedOn).await.unwrap());

    assert_eq!(held_ids(&store, "b.example").await, []);
    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.depth.count, mailbox.acknowledged_total), (0, 0));
    assert_eq!((mailbox.delivered_total, mailbox.passed_on_total), (1, 1));
    assert!(matches!(deposit(&store, mail("b.example", "1")).await, Deposited::Duplicate(_)));
    assert_eq!(awaited_by(&store).await, [""; 0]);
}

pub(super) async fn refused(store: Store) {
    let one = leave(&store, onward(mail("b.example", "1"))).await;
    let two = leave(&store, onward(mail("b.example", "2"))).await;
    let plain = leave(&store, mail("b.example", "3")).await;
    let b = server("b.example");

    store.refuse_onward(&b, one).await.unwrap();
    store.refuse_onward(&b, plain).await.unwrap();

    assert_eq!(first(&store, "b.example", "a.example").await, Some(two));
    assert_eq!(held_ids(&store, "b.example").await, [one, two, plain]);
    let lines = store.envelopes(&b, None, 10).await.unwrap();
    let marks: Vec<_> = lines.iter().map(|line| line.onward).collect();
    assert_eq!(marks, [Onward::Refused, Onward::Wanted, Onward::No]);
    // Asking again does not make the recipient want it.
    assert!(matches!(
        deposit(&store, onward(mail("b.example", "1"))).await,
        Deposited::Duplicate(_)
    ));
    assert_eq!(first(&store, "b.example", "a.example").await, Some(two));
}

pub(super) async fn withdrawn(store: Store) {
    let a = server("a.example");
    let one = onward(mail("b.example", "1"));
    leave(&store, one.clone()).await;
    let refused = onward(mail("b.example", "2"));
    let id = leave(&store, refused.clone()).await;
    store.refuse_onward(&server("b.example"), id).await.unwrap();
    let plain = mail("b.example", "3");
    let plain_id = leave(&store, plain.clone()).await;
    let others = onward(from("z.example", mail("b.example", "4")));
    let others_id = leave(&store, others.clone()).await;
    store.register(registration("c.example"), None, time(1000)).await.unwrap();
    let of_registered = onward(mail("c.example", "5"));
    let kept = leave(&store, of_registered.clone()).await;

    let all = [&one, &refused, &plain, &others, &of_registered].map(withdrawal);
    assert_eq!(store.withdraw(&a, &all).await.unwrap(), 3);
    assert_eq!(store.withdraw(&a, &all).await.unwrap(), 0);

    assert_eq!(held_ids(&store, "b.example").await, [plain_id, others_id]);
    assert_eq!(summary(&store, "b.example").await.withdrawn_total, 2);
    assert_eq!(held_ids(&store, "c.example").await, [kept], "it is its recipient's");
    assert_eq!(awaited_by(&store).await, ["b.example"], "what is another's goes on");
    let again = deposit(&store, one).await;
    assert!(matches!(again, Deposited::Stored(_)), "it may be left anew");
}

pub(super) async fn bounded(store: Store) {
    let leave = async |mail: Deposit| store.deposit(mail, TWO_ONWARD).await.unwrap();
    let one = leave(onward(mail_at("b.example", "1", 1000))).await;
    let Deposited::Stored(one) = one else { panic!("not stored: {one:?}") };
    let two = leave(onward(mail_at("c.example", "2", 2000))).await;
    let Deposited::Stored(two) = two else { panic!("not stored: {two:?}") };

    let third = onward(mail("d.example", "3"));
    assert_eq!(leave(third.clone()).await, Deposited::Full(Full::Share));
    assert!(matches!(leave(mail("d.example", "plain")).await, Deposited::Stored(_)));
    let others = onward(from("z.example", mail("d.example", "4")));
    assert!(matches!(leave(others).await, Deposited::Stored(_)));
    // A refusal makes no room: it still lies there.
    store.refuse_onward(&server("c.example"), two).await.unwrap();
    assert_eq!(leave(third.clone()).await, Deposited::Full(Full::Share));
    store.hand_on(&server("b.example"), one, HandedOn::Delivered).await.unwrap();
    assert!(matches!(leave(third).await, Deposited::Stored(_)));
    assert_eq!(acknowledge(&store, "c.example", &[two]).await, 1);
    let fifth = leave(onward(mail_at("b.example", "5", 1500))).await;
    assert!(matches!(fifth, Deposited::Stored(_)), "{fifth:?}");
    expire_deposited_before(&store, 3000).await;
    for number in ["6", "7"] {
        let again = leave(onward(mail_at("b.example", number, 5000))).await;
        assert!(matches!(again, Deposited::Stored(_)), "{again:?}");
    }
    let beyond = leave(onward(mail_at("b.example", "8", 5000))).await;
    assert_eq!(beyond, Deposited::Full(Full::Share));
}

pub(super) async fn destinations_bounded(store: Store) {
    let onward_limits = OnwardLimits { destinations_max: 2, ..OnwardLimits::UNBOUNDED };
    let quotas = Quotas { onward: onward_limits, ..ROOMY };
    let outcome = async |mail: Deposit| store.deposit(mail, quotas).await.unwrap();
    let to_b = leave(&store, onward(mail("b.example", "1"))).await;
    let to_c = leave(&store, onward(mail("c.example", "2"))).await;

    let third = onward(mail("d.example", "3"));
    assert_eq!(outcome(third.clone()).await, Deposited::Full(Full::Share));
    let more = outcome(onward(mail("b.example", "4"))).await;
    let Deposited::Stored(more) = more else { panic!("it goes where mail is already: {more:?}") };
    let plain = outcome(mail("d.example", "5")).await;
    assert!(matches!(plain, Deposited::Stored(_)), "{plain:?}");
    let others = outcome(onward(from("z.example", mail("d.example", "6")))).await;
    assert!(matches!(others, Deposited::Stored(_)), "{others:?}");
    // A refusal frees nothing: the mail still lies there. Neither does one of two that leave.
    store.refuse_onward(&server("c.example"), to_c).await.unwrap();
    store.hand_on(&server("b.example"), to_b, HandedOn::Delivered).await.unwrap();
    assert_eq!(outcome(third.clone()).await, Deposited::Full(Full::Share));
    store.hand_on(&server("b.example"), more, HandedOn::Delivered).await.unwrap();
    assert!(matches!(outcome(third).await, Deposited::Stored(_)));
    assert_eq!(outcome(onward(mail("b.example", "7"))).await, Deposited::Full(Full::Share));
    assert_eq!(acknowledge(&store, "c.example", &[to_c]).await, 1);
    assert!(matches!(outcome(onward(mail("b.example", "7"))).await, Deposited::Stored(_)));
}

pub(super) async fn asked_for_later_beyond_a_bound(store: Store) {
    let first = onward(mail("b.example", "1"));
    let [one, two] = ["c.example", "d.example"].map(|recipient| onward(mail(recipient, "2")));
    let plain = mail("e.example", "3");
    for mail in [&first, &one, &plain] {
        leave(&store, mail.clone()).await;
    }
    let few = OnwardLimits { destinations_max: 2, ..OnwardLimits::UNBOUNDED };
    for onward_limits in [TWO_ENVELOPES, few] {
        let quotas = Quotas { onward: onward_limits, ..ROOMY };
        let again = store.deposit(onward(plain.clone()), quotas).await.unwrap();
        assert_eq!(again, Deposited::Full(Full::Share));
        let as_before = store.deposit(plain.clone(), quotas).await.unwrap();
        assert!(matches!(as_before, Deposited::Duplicate(_)), "{as_before:?}");
        // What is to be delivered already asks for no room, and neither does what its recipient has.
        let marked = store.deposit(first.clone(), quotas).await.unwrap();
        assert!(matches!(marked, Deposited::Duplicate(_)), "{marked:?}");
    }
    assert_eq!(awaited_by(&store).await, ["b.example", "c.example"]);
    assert_eq!(losses(&store, "e.example").await, [], "it is held, and not lost");
    leave(&store, two).await;
    let id = held_ids(&store, "e.example").await[0];
    acknowledge(&store, "e.example", &[id]).await;
    let quotas = Quotas { onward: few, ..ROOMY };
    let known = store.deposit(onward(plain), quotas).await.unwrap();
    assert_eq!(known, Deposited::Duplicate(Known::Acknowledged));
}

pub(super) async fn past_its_time(store: Store) {
    let short = Deposit { expires_at: time(1500), ..onward(mail("b.example", "1")) };
    let short = leave(&store, short).await;
    let long = leave(&store, onward(mail("b.example", "2"))).await;

    assert_eq!(first_at(&store, "b.example", "a.example", 1500).await, Some(short));
    assert_eq!(first_at(&store, "b.example", "a.example", 1501).await, Some(long));
    let end = time(1000).after(TIME_TO_LIVE).as_millis();
    assert_eq!(first_at(&store, "b.example", "a.example", end + 1).await, None);
    assert_eq!(held_ids(&store, "b.example").await, [short, long], "they expire in their turn");
}

pub(super) async fn mailboxes_counted_apart(store: Store) {
    let onward_limits = OnwardLimits { mailboxes_max: 2, ..OnwardLimits::UNBOUNDED };
    let quotas = Quotas { mailboxes_max: 2, onward: onward_limits, ..ROOMY };
    let outcome = async |mail: Deposit| store.deposit(mail, quotas).await.unwrap();
    let counts = async || {
        let totals = store.totals().await.unwrap();
        (totals.mailboxes, totals.onward_mailboxes)
    };
    for recipient in ["b.example", "c.example"] {
        assert!(matches!(outcome(onward(mail(recipient, "1"))).await, Deposited::Stored(_)));
    }
    let beyond = onward(from("z.example", mail("d.example", "1")));
    assert_eq!(outcome(beyond.clone()).await, Deposited::Full(Full::Mailbox));
    assert_eq!(counts().await, (2, 2));

    // Those of others have all their places.
    for recipient in ["e.example", "f.example"] {
        assert!(matches!(outcome(mail(recipient, "1")).await, Deposited::Stored(_)));
    }
    assert_eq!(outcome(mail("g.example", "1")).await, Deposited::Full(Full::Mailbox));
    assert!(matches!(outcome(onward(mail("e.example", "2"))).await, Deposited::Stored(_)));
    // Other mail makes it one of theirs, for which there is no place.
    assert_eq!(outcome(mail("b.example", "2")).await, Deposited::Full(Full::Mailbox));
    assert_eq!(counts().await, (4, 2));
    // Registered servers always have theirs.
    store.register(registration("b.example"), None, time(1000)).await.unwrap();
    assert_eq!(counts().await, (4, 1));
    assert!(matches!(outcome(mail("b.example", "2")).await, Deposited::Stored(_)));
    assert!(matches!(outcome(beyond).await, Deposited::Stored(_)), "its place is free");
    assert_eq!(counts().await, (5, 2));
    let roomy = deposit(&store, mail("c.example", "2")).await;
    assert!(matches!(roomy, Deposited::Stored(_)), "{roomy:?}");
    assert_eq!(counts().await, (5, 1));
}

pub(super) async fn empty_ones_make_room(store: Store) {
    let onward_limits = OnwardLimits { mailboxes_max: 2, ..OnwardLimits::UNBOUNDED };
    let quotas = Quotas { onward: onward_limits, ..ROOMY };
    let outcome = async |mail: Deposit| store.deposit(mail, quotas).await.unwrap();
    let names = async || {
        let mailboxes = store.list(None, 100).await.unwrap();
        mailboxes.into_iter().map(|mailbox| mailbox.recipient.to_string()).collect::<Vec<_>>()
    };
    // An empty one that was for other mail as well is none of them.
    let plain = leave(&store, mail_at("a.example", "0", 1000)).await;
    acknowledge(&store, "a.example", &[plain]).await;
    let mut ids = Vec::new();
    for (recipient, at) in [("c.example", 2000), ("b.example", 3000)] {
        let left = outcome(onward(mail_at(recipient, "1", at))).await;
        let Deposited::Stored(id) = left else { panic!("not stored: {left:?}") };
        ids.push((server(recipient), id));
    }
    for (recipient, id) in &ids {
        store.hand_on(recipient, *id, HandedOn::Delivered).await.unwrap();
    }
    store.hold(&server("c.example")).await.unwrap();
    assert_eq!(names().await, ["a.example", "b.example", "c.example"]);

    let another = outcome(onward(mail_at("d.example", "2", 4000))).await;
    assert!(matches!(another, Deposited::Stored(_)), "{another:?}");
    assert_eq!(names().await, ["a.example", "c.example", "d.example"], "a hold keeps it");
    let beyond = onward(mail_at("e.example", "3", 5000));
    assert_eq!(outcome(beyond.clone()).await, Deposited::Full(Full::Mailbox));
    store.release(&server("c.example")).await.unwrap();
    assert!(matches!(outcome(beyond).await, Deposited::Stored(_)));
    assert_eq!(names().await, ["a.example", "d.example", "e.example"]);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.mailboxes, totals.onward_mailboxes), (3, 2));
    // What was delivered is known all the same.
    let again = deposit(&store, onward(mail_at("b.example", "1", 3000))).await;
    assert_eq!(again, Deposited::Duplicate(Known::Acknowledged));
}

pub(super) async fn bounded_in_bytes(store: Store) {
    let large = onward(mail("b.example", "1"));
    let limits = MailboxLimits { envelopes_max: 100, bytes_max: 2 * large.bytes() };
    let onward_limits = OnwardLimits { origin: limits, ..OnwardLimits::UNBOUNDED };
    let quotas = Quotas { onward: onward_limits, ..ROOMY };
    let leave = async |mail: Deposit| store.deposit(mail, quotas).await.unwrap();
    let one = leave(large.clone()).await;
    let Deposited::Stored(one) = one else { panic!("not stored: {one:?}") };
    let two = leave(onward(mail("c.example", "2"))).await;
    assert!(matches!(two, Deposited::Stored(_)), "{two:?}");

    let of = |txn_id, bytes| onward(mail_of("d.example", txn_id, bytes));
    assert_eq!(leave(of("3", 1)).await, Deposited::Full(Full::Share));
    store.hand_on(&server("b.example"), one, HandedOn::Delivered).await.unwrap();
    let all = usize::try_from(large.bytes()).unwrap();
    assert_eq!(leave(of("4", all + 1)).await, Deposited::Full(Full::Share));
    let filled = leave(of("5", all)).await;
    assert!(matches!(filled, Deposited::Stored(_)), "{filled:?}");
}

pub(super) async fn withdrawn_makes_room(store: Store) {
    store.register(registration("c.example"), None, time(1000)).await.unwrap();
    let leave = async |mail: Deposit| store.deposit(mail, TWO_ONWARD).await.unwrap();
    // One that is removed when it is withdrawn, and one that stays for its recipient.
    let both = [onward(mail("b.example", "1")), onward(mail("c.example", "2"))];
    for mail in &both {
        assert!(matches!(leave(mail.clone()).await, Deposited::Stored(_)));
    }
    for (withdrawn, next) in both.iter().zip(["3", "4"]) {
        let next = onward(mail("d.example", next));
        assert_eq!(leave(next.clone()).await, Deposited::Full(Full::Share));
        let withdrawn = [withdrawal(withdrawn)];
        assert_eq!(store.withdraw(&server("a.example"), &withdrawn).await.unwrap(), 1);
        assert!(matches!(leave(next).await, Deposited::Stored(_)));
    }
    assert_eq!(leave(onward(mail("d.example", "5"))).await, Deposited::Full(Full::Share));
}

pub(super) async fn asked_for_later(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;
    assert_eq!(first(&store, "b.example", "a.example").await, None);

    assert!(matches!(
        deposit(&store, onward(mail("b.example", "1"))).await,
        Deposited::Duplicate(_)
    ));

    assert_eq!(first(&store, "b.example", "a.example").await, Some(id));
    acknowledge(&store, "b.example", &[id]).await;
    assert!(matches!(
        deposit(&store, onward(mail("b.example", "1"))).await,
        Deposited::Duplicate(_)
    ));
    assert_eq!(awaited_by(&store).await, [""; 0], "its recipient has it");
}

pub(super) async fn asked_for_later_and_bounded(store: Store) {
    for txn in ["1", "2", "3"] {
        leave(&store, mail("b.example", txn)).await;
    }
    for txn in ["1", "2"] {
        let again = store.deposit(onward(mail("b.example", txn)), TWO_ONWARD).await.unwrap();
        assert!(matches!(again, Deposited::Duplicate(_)), "{again:?}");
    }
    let third = store.deposit(onward(mail("b.example", "3")), TWO_ONWARD).await.unwrap();
    assert_eq!(third, Deposited::Full(Full::Share));

    let lines = store.envelopes(&server("b.example"), None, 10).await.unwrap();
    let marks: Vec<_> = lines.iter().map(|line| line.onward).collect();
    assert_eq!(marks, [Onward::Wanted, Onward::Wanted, Onward::No]);
    let more = store.deposit(onward(mail("c.example", "4")), TWO_ONWARD).await.unwrap();
    assert_eq!(more, Deposited::Full(Full::Share));
}

pub(super) async fn held(store: Store) {
    leave(&store, onward(mail("b.example", "1"))).await;
    let b = server("b.example");
    store.hold(&b).await.unwrap();

    assert_eq!(awaited_by(&store).await, [""; 0]);
    assert_eq!(store.awaiting(&b, None, 10).await.unwrap(), []);
    assert_eq!(first(&store, "b.example", "a.example").await, None);

    store.release(&b).await.unwrap();
    assert_eq!(awaited_by(&store).await, ["b.example"]);
}
