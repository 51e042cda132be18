//! Many callers at once.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::Store;
use super::fixtures::{ROOMY, THREE_ENVELOPES, held, held_ids, leave, mail, page};
use crate::{Deposit, Deposited, Page, Quotas};

const CALLERS: usize = 64;

async fn deposit_at_once(store: &Store, deposits: Vec<Deposit>, quotas: Quotas) -> Vec<Deposited> {
    let mut callers = JoinSet::new();
    for deposit in deposits {
        let store = store.clone();
        callers.spawn(async move { store.deposit(deposit, quotas).await.unwrap() });
    }
    callers.join_all().await
}

pub(super) async fn deposits(store: Store) {
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let store = store.clone();
        callers.spawn(async move {
            let deposit = mail("b.example", &number.to_string());
            (leave(&store, deposit.clone()).await, deposit)
        });
    }
    let expected: BTreeMap<_, _> = callers.join_all().await.into_iter().collect();

    assert_eq!(expected.len(), CALLERS, "an id was given out twice");
    let held: Vec<_> =
        held(&store, "b.example").await.into_iter().map(|held| (held.id, held.deposit)).collect();
    assert_eq!(held, expected.into_iter().collect::<Vec<_>>());
}

pub(super) async fn same_mail(store: Store) {
    let results = deposit_at_once(&store, vec![mail("b.example", "1"); CALLERS], ROOMY).await;

    let stored = results.iter().filter(|result| matches!(result, Deposited::Stored(_))).count();
    let duplicates =
        results.iter().filter(|result| matches!(result, Deposited::Duplicate(_))).count();
    assert_eq!((stored, duplicates), (1, CALLERS - 1));
    assert_eq!(held_ids(&store, "b.example").await.len(), 1);
}

pub(super) async fn overfull(store: Store) {
    let deposits = (0..CALLERS).map(|number| mail("b.example", &number.to_string())).collect();

    let results = deposit_at_once(&store, deposits, THREE_ENVELOPES).await;

    let stored = results.iter().filter(|result| matches!(result, Deposited::Stored(_))).count();
    assert_eq!(stored, 3);
    assert_eq!(held_ids(&store, "b.example").await.len(), 3);
}

pub(super) async fn seen_at_once(store: Store) {
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        callers.spawn(async move {
            let recipient = format!("b{number}.example");
            for txn in 0..20 {
                let id = leave(&store, mail(&recipient, &txn.to_string())).await;
                let asked = Page { envelopes_max: 100, bytes_max: usize::MAX };
                let last = page(&store, &recipient, None, asked).await.pop();
                assert_eq!(last.map(|envelope| envelope.id), Some(id));
            }
        });
    }
    callers.join_all().await;
}
