//! Damage under mail that is to be delivered onward.

use super::*;
use crate::{OnwardLimits, OnwardMail as _};

/// Leaves mail of these origins.
async fn leave_onward(store: &SqliteStore, origins: &[&str]) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for origin in origins {
        let txn_id = ids.len().to_string();
        let origin = origin.parse().unwrap();
        let onward = Deposit { origin, onward: Onward::Wanted, ..mail(&txn_id) };
        match store.deposit(onward, ROOMY).await.unwrap() {
            Deposited::Stored(id) => ids.push(id),
            other => panic!("not stored: {other:?}"),
        }
    }
    ids
}

#[tokio::test]
async fn a_damaged_envelope_holds_up_none_behind_it_and_takes_no_share() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave_onward(&store, &["a.example", "a.example"]).await;
    folder.damage(ids[0], "body = x''");

    let first = store
        .first_onward(&recipient(), &"a.example".parse().unwrap(), Timestamp::EPOCH)
        .await
        .unwrap();

    assert_eq!(first.map(|envelope| envelope.id), Some(ids[1]));
    assert_eq!(summary_of(&store).await.quarantined, 1);
    let two = MailboxLimits { envelopes_max: 2, bytes_max: u64::MAX };
    let more = Deposit { onward: Onward::Wanted, ..mail("more") };
    let onward = OnwardLimits { origin: two, ..OnwardLimits::UNBOUNDED };
    let taken = store.deposit(more, Quotas { onward, ..ROOMY }).await.unwrap();
    assert!(matches!(taken, Deposited::Stored(_)), "{taken:?}");
}

#[tokio::test]
async fn a_damaged_envelope_that_can_not_be_set_aside_is_an_error_and_not_the_end_of_the_mail() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave_onward(&store, &["a.example", "a.example"]).await;
    folder.damage(ids[0], "body = x''");
    let outside = Connection::open(folder.path()).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE OF quarantined ON envelopes BEGIN SELECT RAISE(ABORT, 'no'); END";
    outside.execute_batch(refuse).unwrap();
    let origin = "a.example".parse().unwrap();

    let refused = store.first_onward(&recipient(), &origin, Timestamp::EPOCH).await;
    assert!(refused.is_err(), "{refused:?}");

    outside.execute_batch("DROP TRIGGER refuse").unwrap();
    let first = store.first_onward(&recipient(), &origin, Timestamp::EPOCH).await.unwrap();
    assert_eq!(first.map(|envelope| envelope.id), Some(ids[1]));
}

#[tokio::test]
async fn an_origin_that_damage_made_no_name_hides_none_behind_it() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave_onward(&store, &["a.example", "m.example", "z.example"]).await;
    folder.damage(ids[1], "origin = 'no name'");

    let origins = store.awaiting(&recipient(), None, 10).await.unwrap();

    assert_eq!(origins, ["a.example", "z.example"].map(|origin| origin.parse().unwrap()));
}
