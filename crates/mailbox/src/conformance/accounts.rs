//! What became of mail, and what its owner has from elsewhere.

use std::sync::Arc;

use super::Store;
use super::fixtures::{
    acknowledge, deposit, expire_deposited_before, held_ids, leave, leave_all, mail, mail_at,
    server, summary, time,
};
use super::registry::registration;
use crate::{
    ContentHash, Deposit, Deposited, DuplicateKey, Known, Lapse, LeftMail, MailName,
    NAMES_AHEAD_MAX, Whereabouts,
};

fn name(deposit: &Deposit) -> MailName {
    let Deposit { origin, txn_id, content_hash, .. } = deposit.clone();
    MailName { origin, txn_id, content_hash }
}

async fn register(store: &Store, recipient: &str) {
    store.register(registration(recipient), None, time(1000)).await.unwrap();
}

async fn has(store: &Store, recipient: &str, mail: &[Deposit]) -> u64 {
    let copies: Vec<_> = mail.iter().map(DuplicateKey::of).collect();
    store.acknowledge_copies(&server(recipient), &copies, time(1000)).await.unwrap().removed
}

async fn whereabouts_at(store: &Store, mail: &[Deposit], millis: u64) -> Vec<Whereabouts> {
    let mail: Vec<_> = mail.iter().map(|one| (one.recipient.clone(), name(one))).collect();
    store.whereabouts(&mail, time(millis)).await.unwrap()
}

pub(super) async fn whereabouts(store: Store) {
    let all = ["1", "2", "3", "4"].map(|txn| mail("b.example", txn));
    let ids = leave_all(&store, &all[..3]).await;
    acknowledge(&store, "b.example", &ids[1..2]).await;

    use Whereabouts::{Acknowledged, Held, Unknown};
    let found = whereabouts_at(&store, &all, 1000).await;
    assert_eq!(found, [Held, Acknowledged, Held, Unknown]);
    let others = [
        Deposit { recipient: server("c.example"), ..all[0].clone() },
        Deposit { origin: server("x.example"), ..all[0].clone() },
        Deposit { txn_id: "2".into(), ..all[0].clone() },
        Deposit { content_hash: ContentHash([0; 32]), ..all[0].clone() },
    ];
    assert_eq!(whereabouts_at(&store, &others, 1000).await, [Unknown; 4]);
    assert_eq!(whereabouts_at(&store, &[], 1000).await, []);
}

pub(super) async fn past_its_time(store: Store) {
    let mail = mail("b.example", "1");
    leave(&store, mail.clone()).await;
    let expires_at = mail.expires_at.as_millis();
    let at = async |millis| whereabouts_at(&store, std::slice::from_ref(&mail), millis).await[0];

    assert_eq!(at(expires_at).await, Whereabouts::Held);
    assert_eq!(at(expires_at + 1).await, Whereabouts::Unknown);
    store.hold(&server("b.example")).await.unwrap();
    assert_eq!(at(expires_at + 1).await, Whereabouts::Held);
}

pub(super) async fn copies(store: Store) {
    let all = ["1", "2", "3"].map(|txn| mail("b.example", txn));
    let ids = leave_all(&store, &all).await;

    assert_eq!(has(&store, "b.example", &[all[2].clone(), all[0].clone()]).await, 2);

    assert_eq!(held_ids(&store, "b.example").await, [ids[1]]);
    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.acknowledged_total, mailbox.depth.count), (2, 1));
    assert_eq!(mailbox.depth.bytes, all[1].bytes());
    assert!(matches!(deposit(&store, all[0].clone()).await, Deposited::Duplicate(_)));
    assert_eq!(has(&store, "b.example", &all[..1]).await, 0);
}

pub(super) async fn other_mailbox(store: Store) {
    let (mine, theirs) = (mail("b.example", "1"), mail("c.example", "1"));
    let id = leave(&store, theirs.clone()).await;
    register(&store, "b.example").await;

    assert_eq!(has(&store, "b.example", &[mine.clone(), theirs]).await, 0);
    assert_eq!(has(&store, "nobody.example", &[mine]).await, 0);

    assert_eq!(held_ids(&store, "c.example").await, [id]);
    leave(&store, mail("c.example", "2")).await;
    leave(&store, mail("nobody.example", "1")).await;
}

pub(super) async fn late_copy(store: Store) {
    register(&store, "b.example").await;
    leave(&store, mail("c.example", "0")).await;
    let (registered, stranger) = (mail("b.example", "1"), mail("c.example", "1"));
    has(&store, "b.example", std::slice::from_ref(&registered)).await;
    has(&store, "c.example", std::slice::from_ref(&stranger)).await;

    let at_1000 = async |mail| whereabouts_at(&store, std::slice::from_ref(mail), 1000).await[0];
    assert_eq!(at_1000(&registered).await, Whereabouts::Unknown, "it never came");
    for _ in 0..2 {
        let known = Deposited::Duplicate(Known::Acknowledged);
        assert_eq!(deposit(&store, registered.clone()).await, known);
        assert_eq!(at_1000(&registered).await, Whereabouts::Acknowledged);
    }
    assert_eq!(summary(&store, "b.example").await.acknowledged_total, 0);
    leave(&store, stranger).await;

    assert_eq!(expire_deposited_before(&store, 1000).await.remembered, 0);
    assert_eq!(expire_deposited_before(&store, 1001).await.remembered, 1);
    leave(&store, mail_at("b.example", "1", 2000)).await;
}

pub(super) async fn acknowledged_before(store: Store) {
    register(&store, "b.example").await;
    let id = leave(&store, mail("b.example", "1")).await;
    acknowledge(&store, "b.example", &[id]).await;

    assert_eq!(has(&store, "b.example", &[mail("b.example", "1")]).await, 0);

    assert_eq!(expire_deposited_before(&store, 1001).await.remembered, 1);
    leave(&store, mail_at("b.example", "1", 2000)).await;
}

pub(super) async fn too_late(store: Store) {
    register(&store, "b.example").await;
    let two_days = 2 * 24 * 3600 * 1000;
    let late =
        [mail_at("b.example", "1", 1000 + two_days), mail_at("b.example", "2", 1001 + two_days)];
    has(&store, "b.example", &late).await;

    let known = Deposited::Duplicate(Known::Acknowledged);
    assert_eq!(deposit(&store, late[0].clone()).await, known);
    leave(&store, late[1].clone()).await;
}

pub(super) async fn ahead_of_who_leaves(store: Store) {
    register(&store, "b.example").await;
    register(&store, "c.example").await;
    for recipient in ["b.example", "c.example"] {
        has(&store, recipient, &[mail(recipient, "1")]).await;
    }
    store.leave(&server("b.example"), LeftMail::Keep, time(1000)).await.unwrap();
    let lapse = Lapse {
        now: time(9000),
        called_before: time(9000),
        unused_before: time(0),
        spared: Arc::new([]),
    };
    let lapsed = store.lapse(&lapse, None, 10).await.unwrap();
    assert_eq!(lapsed.registrations, [server("c.example")]);

    leave(&store, mail("b.example", "1")).await;
    leave(&store, mail("c.example", "1")).await;
}

pub(super) async fn bounded(store: Store) {
    register(&store, "b.example").await;
    register(&store, "c.example").await;
    let all: Vec<_> = (0..=NAMES_AHEAD_MAX).map(|n| mail("b.example", &n.to_string())).collect();
    for some in all.chunks(1000) {
        has(&store, "b.example", some).await;
    }
    let last = NAMES_AHEAD_MAX as usize;
    let others = mail("c.example", "1");
    has(&store, "c.example", std::slice::from_ref(&others)).await;

    let known = Deposited::Duplicate(Known::Acknowledged);
    for taken in [&all[0], &all[last - 1], &others] {
        assert_eq!(deposit(&store, taken.clone()).await, known);
    }
    leave(&store, all[last].clone()).await;
}
