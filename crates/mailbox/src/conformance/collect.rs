//! Collecting mail.

use super::Store;
use super::fixtures::{
    EVERYTHING, acknowledge, held, held_ids, leave, leave_all, mail, mail_at, mail_of, page, server,
};
use crate::{Collected, EntryId, Page, StoredEnvelope};

pub(super) async fn in_order(store: Store) {
    let deposits = [5000, 1000, 9000, 3000].map(|at| mail_at("b.example", &at.to_string(), at));
    let ids = leave_all(&store, &deposits).await;

    let held = held(&store, "b.example").await;

    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(ids_of(&held), ids);
    for (envelope, deposit) in held.iter().zip(deposits) {
        assert_eq!(envelope.deposit, deposit);
    }
}

pub(super) async fn after(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    for (index, id) in ids.iter().enumerate() {
        let later = page(&store, "b.example", Some(*id), EVERYTHING).await;
        assert_eq!(ids_of(&later), ids[index + 1..]);
    }
    // A cursor need not be an id that is held.
    let below = EntryId::new(1);
    assert_eq!(ids_of(&page(&store, "b.example", below, EVERYTHING).await), ids);
    let above = EntryId::new((1 << 53) - 1);
    assert_eq!(page(&store, "b.example", above, EVERYTHING).await, []);
    acknowledge(&store, "b.example", &ids[..2]).await;
    assert_eq!(ids_of(&page(&store, "b.example", Some(ids[0]), EVERYTHING).await), ids[2..]);
}

pub(super) async fn envelopes_max(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    for envelopes_max in 0..=4 {
        let asked = Page { envelopes_max, ..EVERYTHING };
        let got = page(&store, "b.example", None, asked).await;
        assert_eq!(ids_of(&got), ids[..envelopes_max.min(3)]);
    }
}

pub(super) async fn bytes_max(store: Store) {
    let deposits = [("1", 50), ("2", 30), ("3", 20), ("4", 500), ("5", 1)]
        .map(|(txn, bytes)| mail_of("b.example", txn, bytes));
    let ids = leave_all(&store, &deposits).await;

    for (bytes_max, count) in
        [(0, 1), (1, 1), (79, 1), (80, 2), (99, 2), (100, 3), (599, 3), (600, 4)]
    {
        let got = page(&store, "b.example", None, Page { bytes_max, ..EVERYTHING }).await;
        assert_eq!(ids_of(&got), ids[..count], "{bytes_max} bytes");
    }
    // Order is kept: a small envelope does not overtake a large one.
    let asked = Page { bytes_max: 100, ..EVERYTHING };
    assert_eq!(ids_of(&page(&store, "b.example", Some(ids[2]), asked).await), ids[3..4]);
}

pub(super) async fn pages(store: Store) {
    let deposits: Vec<_> =
        (0..50).map(|i| mail_of("b.example", &i.to_string(), i * 7 % 40)).collect();
    let ids = leave_all(&store, &deposits).await;
    leave(&store, mail("c.example", "other")).await;

    let mut got = Vec::new();
    loop {
        let asked = Page { envelopes_max: 7, bytes_max: 90 };
        let some = page(&store, "b.example", got.last().copied(), asked).await;
        if some.is_empty() {
            break;
        }
        got.extend(ids_of(&some));
    }

    assert_eq!(got, ids);
}

pub(super) async fn changes_nothing(store: Store) {
    leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;
    let depth = store.depth(&server("b.example")).await.unwrap();

    let first = held(&store, "b.example").await;
    let second = held(&store, "b.example").await;

    assert_eq!(first, second);
    assert_eq!(store.depth(&server("b.example")).await.unwrap(), depth);
}

pub(super) async fn unknown(store: Store) {
    leave(&store, mail("b.example", "1")).await;

    let collected = store.collect(&server("nobody.example"), None, EVERYTHING).await.unwrap();

    assert_eq!(collected, Collected::default());
    assert_eq!(store.list(None, 10).await.unwrap().len(), 1);
    assert_eq!(held_ids(&store, "b.example").await.len(), 1);
}

fn ids_of(envelopes: &[StoredEnvelope]) -> Vec<EntryId> {
    envelopes.iter().map(|envelope| envelope.id).collect()
}
