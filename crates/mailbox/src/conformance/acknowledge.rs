//! Acknowledging mail.

use super::Store;
use super::fixtures::{
    THREE_ENVELOPES, acknowledge, deposit, held_ids, leave, leave_all, mail, server,
};
use crate::{Acknowledgement, ContentHash, Deposited, EntryId, Full};

pub(super) async fn named(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3", "4"].map(|txn| mail("b.example", txn))).await;

    let removed = acknowledge(&store, "b.example", &[ids[2], ids[0]]).await;

    assert_eq!(removed, 2);
    assert_eq!(held_ids(&store, "b.example").await, [ids[1], ids[3]]);
}

pub(super) async fn other_mailbox(store: Store) {
    let mine = leave_all(&store, &["1", "2"].map(|txn| mail("b.example", txn))).await;
    let theirs = leave_all(&store, &["1", "2"].map(|txn| mail("c.example", txn))).await;

    assert_eq!(acknowledge(&store, "b.example", &theirs).await, 0);
    assert_eq!(acknowledge(&store, "nobody.example", &theirs).await, 0);
    assert_eq!(acknowledge(&store, "b.example", &mine).await, 2);

    assert_eq!(held_ids(&store, "b.example").await, []);
    assert_eq!(held_ids(&store, "c.example").await, theirs);
}

pub(super) async fn other_content(store: Store) {
    let mail = mail("b.example", "1");
    let id = leave(&store, mail.clone()).await;
    let with = |content_hash| [Acknowledgement { id, content_hash: Some(content_hash) }];

    let wrong = store.acknowledge(&server("b.example"), &with(ContentHash([0; 32]))).await.unwrap();
    assert_eq!(wrong.removed, 0);
    assert_eq!(held_ids(&store, "b.example").await, [id]);

    let right = store.acknowledge(&server("b.example"), &with(mail.content_hash)).await.unwrap();
    assert_eq!(right.removed, 1);
    assert_eq!(held_ids(&store, "b.example").await, []);
}

pub(super) async fn unknown(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;
    let lowest = EntryId::new(1).unwrap();
    let highest = EntryId::new((1 << 53) - 1).unwrap();

    assert_eq!(acknowledge(&store, "b.example", &[]).await, 0);
    assert_eq!(acknowledge(&store, "b.example", &[lowest, id, id, highest]).await, 1);
    assert_eq!(acknowledge(&store, "b.example", &[id]).await, 0);
}

pub(super) async fn remembered(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;
    acknowledge(&store, "b.example", &[id]).await;

    let again = deposit(&store, mail("b.example", "1")).await;

    assert!(matches!(again, Deposited::Duplicate(_)));
    assert_eq!(held_ids(&store, "b.example").await, []);
}

pub(super) async fn makes_room(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    acknowledge(&store, "b.example", &ids[..2]).await;

    leave_all(&store, &["4", "5"].map(|txn| mail("b.example", txn))).await;
    let refused = store.deposit(mail("b.example", "6"), THREE_ENVELOPES).await.unwrap();
    assert_eq!(refused, Deposited::Full(Full::Mailbox));
}

pub(super) async fn ids_stay_used(store: Store) {
    let ids = leave_all(&store, &["1", "2"].map(|txn| mail("b.example", txn))).await;
    acknowledge(&store, "b.example", &ids).await;

    let later = leave(&store, mail("b.example", "3")).await;

    assert!(later > ids[1], "{later:?} after {ids:?}");
    assert_eq!(acknowledge(&store, "b.example", &ids).await, 0);
    assert_eq!(held_ids(&store, "b.example").await, [later]);
}
