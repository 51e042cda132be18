//! What the store tells about its mailboxes and itself.

use restante_federation_proto::Timestamp;

use super::Store;
use super::fixtures::{
    acknowledge, expire_deposited_before, leave, leave_all, mail, mail_at, server, summary,
};
use crate::Depth;

pub(super) async fn depth(store: Store) {
    let deposits = [2000, 1000, 3000].map(|at| mail_at("b.example", &at.to_string(), at));
    let bytes = |range: std::ops::Range<usize>| {
        deposits[range].iter().map(|deposit| deposit.bytes()).sum::<u64>()
    };
    let recipient = server("b.example");
    assert_eq!(store.depth(&recipient).await.unwrap(), Depth::default());

    let ids = leave_all(&store, &deposits).await;
    leave(&store, mail("c.example", "other")).await;
    assert_eq!(
        store.depth(&recipient).await.unwrap(),
        Depth { count: 3, bytes: bytes(0..3), oldest_at: Some(Timestamp::from_millis(2000)) }
    );

    acknowledge(&store, "b.example", &ids[..1]).await;
    assert_eq!(
        store.depth(&recipient).await.unwrap(),
        Depth { count: 2, bytes: bytes(1..3), oldest_at: Some(Timestamp::from_millis(1000)) }
    );

    expire_deposited_before(&store, 2500).await;
    assert_eq!(
        store.depth(&recipient).await.unwrap(),
        Depth { count: 1, bytes: bytes(2..3), oldest_at: Some(Timestamp::from_millis(3000)) }
    );

    acknowledge(&store, "b.example", &ids).await;
    assert_eq!(store.depth(&recipient).await.unwrap(), Depth::default());
}

pub(super) async fn totals(store: Store) {
    let deposits = [1000, 2000, 3000, 4000].map(|at| mail_at("b.example", &at.to_string(), at));
    let ids = leave_all(&store, &deposits).await;
    leave(&store, mail_at("c.example", "1", 9000)).await;

    acknowledge(&store, "b.example", &ids[2..]).await;
    acknowledge(&store, "b.example", &ids[2..]).await;
    expire_deposited_before(&store, 1500).await;

    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.acknowledged_total, mailbox.expired_total), (2, 1));
    assert_eq!((mailbox.depth.count, mailbox.quarantined), (1, 0));
    let other = summary(&store, "c.example").await;
    assert_eq!((other.acknowledged_total, other.expired_total), (0, 0));
}

pub(super) async fn listed(store: Store) {
    for name in ["d.example", "b.example", "c.example", "b.example:8448"] {
        leave(&store, mail(name, "1")).await;
    }
    let names = ["b.example", "b.example:8448", "c.example", "d.example"];

    let mut got = Vec::new();
    loop {
        let some = store.list(got.last(), 3).await.unwrap();
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 3);
        got.extend(some.into_iter().map(|mailbox| {
            assert_eq!(mailbox.depth.count, 1);
            mailbox.recipient
        }));
    }

    assert_eq!(got, names.map(server));
    assert_eq!(store.list(None, 0).await.unwrap(), []);
    assert_eq!(store.list(Some(&server("bb.example")), 1).await.unwrap()[0].recipient, got[2]);
}

pub(super) async fn empty_listed(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;

    acknowledge(&store, "b.example", &[id]).await;

    assert_eq!(summary(&store, "b.example").await.depth, Depth::default());
}

pub(super) async fn health(store: Store) {
    store.health().await.unwrap();
    store.health().await.unwrap();
    assert_eq!(store.list(None, 10).await.unwrap(), []);
}
