//! Expiry.

use super::Store;
use super::fixtures::{
    TIME_TO_LIVE, acknowledge, deposit, held_ids, leave, leave_all, mail_at, time,
};
use crate::{Deposited, Due, Expired};

/// Expires what was deposited before `millis`.
async fn expire(store: &Store, before: u64, batch_max: usize) -> Expired {
    let now = time(before).after(TIME_TO_LIVE);
    store.expire(Due { now, remembered_from: time(before) }, batch_max).await.unwrap()
}

fn envelopes(envelopes: u64) -> Expired {
    Expired { envelopes, ..Expired::default() }
}

fn remembered(remembered: u64) -> Expired {
    Expired { remembered, ..Expired::default() }
}

pub(super) async fn before(store: Store) {
    let deposits = [3000, 1000, 2000].map(|at| mail_at("b.example", &at.to_string(), at));
    let ids = leave_all(&store, &deposits).await;

    assert_eq!(expire(&store, 1000, 10).await, envelopes(0));
    assert_eq!(expire(&store, 2000, 10).await, envelopes(1));
    assert_eq!(held_ids(&store, "b.example").await, [ids[0], ids[2]]);
    assert_eq!(expire(&store, u64::MAX, 10).await, envelopes(2));
    assert_eq!(held_ids(&store, "b.example").await, []);
}

pub(super) async fn in_steps(store: Store) {
    let deposits = [("b.example", 4), ("c.example", 1), ("b.example", 2), ("c.example", 3)]
        .map(|(recipient, at)| mail_at(recipient, &at.to_string(), at));
    let ids = leave_all(&store, &deposits).await;
    let young = leave(&store, mail_at("c.example", "young", 9)).await;

    assert_eq!(expire(&store, 9, 0).await, envelopes(0));
    assert_eq!(expire(&store, 9, 3).await, envelopes(3));
    assert_eq!(held_ids(&store, "b.example").await, ids[..1]);
    assert_eq!(held_ids(&store, "c.example").await, [young]);
    assert_eq!(expire(&store, 9, 3).await, envelopes(1));
    assert_eq!(expire(&store, 9, 3).await, envelopes(0));
    assert_eq!(held_ids(&store, "c.example").await, [young]);
}

pub(super) async fn left_anew(store: Store) {
    let first = leave(&store, mail_at("b.example", "1", 1000)).await;
    expire(&store, 2000, 10).await;

    let second = leave(&store, mail_at("b.example", "1", 2000)).await;

    assert!(second > first);
    assert_eq!(held_ids(&store, "b.example").await, [second]);
}

pub(super) async fn forgotten(store: Store) {
    let deposits = [1000, 2000, 3000].map(|at| mail_at("b.example", &at.to_string(), at));
    let ids = leave_all(&store, &deposits).await;
    acknowledge(&store, "b.example", &ids).await;

    assert_eq!(expire(&store, 1000, 10).await, remembered(0));
    assert_eq!(expire(&store, 3000, 1).await, remembered(1));
    assert!(matches!(deposit(&store, deposits[1].clone()).await, Deposited::Duplicate(_)));
    assert_eq!(expire(&store, 3000, 10).await, remembered(1));
    assert_eq!(expire(&store, 3000, 10).await, remembered(0));

    assert!(matches!(deposit(&store, deposits[2].clone()).await, Deposited::Duplicate(_)));
    leave_all(&store, &deposits[..2]).await;
}

pub(super) async fn noted(store: Store) {
    assert_eq!(store.expired_to().await.unwrap(), None);
    // The clock may have gone back since.
    for millis in [1000, 3000, 2000] {
        let noted = time(millis);
        store.note_expired_to(noted).await.unwrap();
        assert_eq!(store.expired_to().await.unwrap(), Some(noted));
    }
}
