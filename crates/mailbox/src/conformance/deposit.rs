//! Leaving mail.

use bytes::Bytes;

use super::Store;
use super::fixtures::{
    HUNDRED_BYTES, THREE_ENVELOPES, acknowledge, deposit, hash, held, held_ids, leave, leave_all,
    losses, mail, mail_at, mail_of, server, summary, time,
};
use crate::{Deposit, Deposited, Full, Hold, Known, LossKind, OF_THE_MOMENT};

pub(super) async fn whole(store: Store) {
    let noise: Vec<u8> =
        (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let deposits = [
        mail("b.example", "ordinary"),
        Deposit { members: Bytes::new(), ..mail("b.example", "no members") },
        mail_of("b.example", "empty", 0),
        mail_of("b.example", "one byte", 1),
        mail_of("b.example", "repeats itself", 1 << 20),
        Deposit { content: noise.clone().into(), ..mail("b.example", "noise") },
        Deposit { members: noise.into(), ..mail("b.example", "noise beside it") },
        mail("b.example", "id with \"quotes\", ünïcode and a \0"),
        mail("b.example", ""),
    ];

    let ids = leave_all(&store, &deposits).await;

    let held = held(&store, "b.example").await;
    assert_eq!(held.len(), deposits.len());
    for ((envelope, deposit), id) in held.iter().zip(&deposits).zip(ids) {
        assert_eq!((&envelope.deposit, envelope.id), (deposit, id));
    }
}

pub(super) async fn once(store: Store) {
    let first = mail("b.example", "1");
    let id = leave(&store, first.clone()).await;

    let later = Deposit { members: Bytes::from_static(b"{}"), ..mail_at("b.example", "1", 5000) };
    for again in [first.clone(), later] {
        assert!(matches!(deposit(&store, again).await, Deposited::Duplicate(_)));
    }

    let held = held(&store, "b.example").await;
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].id, &held[0].deposit), (id, &first));
}

pub(super) async fn left_again(store: Store) {
    let first = mail("b.example", "1");
    let id = leave(&store, first.clone()).await;
    let (since, until) = (first.deposited_at, first.expires_at);
    let again = Deposit { deposited_at: until, expires_at: time(u64::MAX >> 12), ..first.clone() };
    let known = deposit(&store, again.clone()).await;
    assert_eq!(known, Deposited::Duplicate(Known::Held { since, until }));
    acknowledge(&store, "b.example", &[id]).await;
    let known = deposit(&store, again).await;
    assert_eq!(known, Deposited::Duplicate(Known::Acknowledged));
}

pub(super) async fn past_its_time(store: Store) {
    let first = mail("b.example", "1");
    let kept = mail("b.example", "2");
    let ids = leave_all(&store, &[first.clone(), kept]).await;
    let later = mail_at("b.example", "1", first.expires_at.as_millis() + 1);
    let anew = leave(&store, later.clone()).await;
    assert_eq!(held_ids(&store, "b.example").await, [ids[1], anew]);
    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.expired_total, mailbox.depth.count), (1, 2));
    let losses = losses(&store, "b.example").await;
    assert_eq!(
        losses.iter().map(|loss| (loss.kind, loss.count)).collect::<Vec<_>>(),
        [(LossKind::Expired, 1)]
    );
    assert!(matches!(deposit(&store, later).await, Deposited::Duplicate(_)));
}

pub(super) async fn of_the_moment_and_past_its_time(store: Store) {
    let typing = mail("b.example", "1");
    let typing = Deposit { expires_at: typing.deposited_at.after(OF_THE_MOMENT), ..typing };
    leave(&store, typing.clone()).await;
    let later = mail_at("b.example", "1", typing.expires_at.as_millis() + 1);
    let anew = leave(&store, later).await;
    assert_eq!(held_ids(&store, "b.example").await, [anew]);
    assert_eq!(summary(&store, "b.example").await.expired_total, 0);
    assert!(losses(&store, "b.example").await.is_empty());
}

pub(super) async fn past_its_time_when_full(store: Store) {
    let first = mail("b.example", "1");
    leave_all(&store, &[first.clone(), mail("b.example", "2"), mail("b.example", "3")]).await;
    let later = mail_at("b.example", "1", first.expires_at.as_millis() + 1);
    let taken = store.deposit(later, THREE_ENVELOPES).await.unwrap();
    assert!(matches!(taken, Deposited::Stored(_)), "{taken:?}");
    assert_eq!(held_ids(&store, "b.example").await.len(), 3);
}

pub(super) async fn past_its_time_and_held(store: Store) {
    let first = mail("b.example", "1");
    let id = leave(&store, first.clone()).await;
    store.hold(&server("b.example")).await.unwrap();
    let (since, until) = (first.deposited_at, first.expires_at);
    let later = mail_at("b.example", "1", until.as_millis() + 1);
    let known = deposit(&store, later).await;
    assert_eq!(known, Deposited::Duplicate(Known::Held { since, until }));
    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.hold, mailbox.expired_total), (Hold::Held, 0));
    store.release(&server("b.example")).await.unwrap();
    assert_eq!(held_ids(&store, "b.example").await, [id]);
}

pub(super) async fn grown(store: Store) {
    let first = mail("b.example", "1");
    let content = Bytes::from_static(br#"{"pdus":[{},{}]}"#);
    let grown = Deposit { content_hash: hash(&content), content, ..first.clone() };

    leave_all(&store, &[first, grown.clone()]).await;

    let held = held(&store, "b.example").await;
    assert_eq!(held.len(), 2);
    assert_eq!(held[1].deposit, grown);
}

pub(super) async fn other_mail(store: Store) {
    let first = mail("b.example", "1");
    let others = [
        Deposit { origin: server("z.example"), ..first.clone() },
        Deposit { txn_id: "2".to_owned(), ..first.clone() },
        Deposit { recipient: server("c.example"), ..first.clone() },
    ];

    leave(&store, first).await;
    leave_all(&store, &others).await;

    assert_eq!(held(&store, "b.example").await.len(), 3);
    assert_eq!(held(&store, "c.example").await.len(), 1);
}

pub(super) async fn too_many(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    let refused = store.deposit(mail("b.example", "4"), THREE_ENVELOPES).await.unwrap();

    assert_eq!(refused, Deposited::Full(Full::Mailbox));
    assert_eq!(held_ids(&store, "b.example").await, ids);
    // A refusal is not remembered.
    acknowledge(&store, "b.example", &ids[..1]).await;
    leave(&store, mail("b.example", "4")).await;
}

pub(super) async fn too_large(store: Store) {
    let deposits = [mail_of("b.example", "1", 60), mail_of("b.example", "2", 39)];
    let ids = leave_all(&store, &deposits).await;

    let refused = store.deposit(mail_of("b.example", "3", 2), HUNDRED_BYTES).await.unwrap();

    assert_eq!(refused, Deposited::Full(Full::Mailbox));
    assert_eq!(held_ids(&store, "b.example").await, ids);
    leave(&store, mail_of("b.example", "fits", 1)).await;
}

pub(super) async fn duplicate_when_full(store: Store) {
    leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    let again = store.deposit(mail("b.example", "2"), THREE_ENVELOPES).await.unwrap();

    assert!(matches!(again, Deposited::Duplicate(_)));
}

pub(super) async fn full_alone(store: Store) {
    leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    let taken = store.deposit(mail("c.example", "4"), THREE_ENVELOPES).await.unwrap();
    assert!(matches!(taken, Deposited::Stored(_)));
}

pub(super) async fn refused_first(store: Store) {
    let refused = store.deposit(mail_of("b.example", "1", 101), HUNDRED_BYTES).await.unwrap();

    assert_eq!(refused, Deposited::Full(Full::Mailbox));
    assert_eq!(store.list(None, 10).await.unwrap(), []);
}

pub(super) async fn random_offsets(store: Store) {
    let mut firsts = Vec::new();
    for name in ["b.example", "c.example", "d.example"] {
        let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail(name, txn))).await;
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        firsts.push(ids[0].get());
    }

    for first in &firsts {
        assert!((1 << 32..=1 << 50).contains(first), "{first}");
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 3, "two mailboxes drew the same offset of 2^50");
}
