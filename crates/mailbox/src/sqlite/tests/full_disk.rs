//! A full disk, and what is kept back for it.

use super::*;
use crate::{
    Accounts as _, DuplicateKey, HandedOn, Invite, InviteHash, InviteOutcome, MailName,
    OnwardMail as _, Revoked, Withdrawal,
};

fn noise(bytes: usize) -> Bytes {
    let mut noise = vec![0; bytes];
    rand::fill(&mut noise[..]);
    noise.into()
}

#[tokio::test]
async fn a_full_disk_refuses_deposits_and_keeps_collecting() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2"]).await;
    store
        .database
        .write(|connection| {
            let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.pragma_update(None, "max_page_count", pages)
        })
        .await
        .unwrap();
    let large = Deposit { content: noise(1 << 20), ..mail("large") };

    let refused = store.deposit(large.clone(), ROOMY).await;

    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    assert_eq!(collect(&store).await, (vec!["1".to_owned(), "2".to_owned()], vec![]));
    assert_eq!(acknowledge(&store, &ids[..1]).await, 1);
    store
        .database
        .write(|connection| connection.pragma_update(None, "max_page_count", 1 << 20))
        .await
        .unwrap();
    assert!(matches!(store.deposit(large, ROOMY).await.unwrap(), Deposited::Stored(_)));
}

#[tokio::test]
async fn a_reserve_that_is_too_small_is_filled_at_the_start() {
    let folder = Folder::new();
    let reserve = folder.path().with_extension("reserve");
    std::fs::write(&reserve, "x").unwrap();
    let _store = folder.open();
    assert!(std::fs::metadata(&reserve).unwrap().len() > 1);
}

#[tokio::test]
async fn with_the_reserve_given_away_mail_can_leave_and_none_comes_until_there_is_room_again() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2"]).await;
    store.reserve.release();
    assert!(!folder.path().with_extension("reserve").exists());
    assert!(matches!(store.deposit(mail("3"), ROOMY).await, Err(StoreError::DiskFull)));

    let acknowledgement = Acknowledgement { id: ids[0], content_hash: None };
    let acknowledged = store.acknowledge(&recipient(), &[acknowledgement]).await.unwrap();
    assert_eq!(acknowledged.removed, 1);
    assert_eq!(collect(&store).await.0, ["2"]);

    store.expire(due(0), 10).await.unwrap();
    assert!(folder.path().with_extension("reserve").exists());
    leave(&store, &["3"]).await;
    assert_eq!(collect(&store).await.0, ["2", "3"]);
}

#[tokio::test]
async fn with_the_reserve_given_away_mail_comes_into_the_room_that_other_mail_left() {
    let folder = Folder::new();
    let store = folder.open();
    let large = Deposit { content: noise(2 << 20), ..mail("large") };
    let stored = store.deposit(large, ROOMY).await.unwrap();
    let Deposited::Stored(id) = stored else { panic!("not stored: {stored:?}") };
    acknowledge(&store, &[id]).await;

    store.reserve.release();

    leave(&store, &["1"]).await;
}

#[tokio::test]
async fn a_full_disk_lets_mail_be_dropped_losses_forgotten_and_servers_leave() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3"]).await;
    let registration = registration("b.example");
    store.register(registration.clone(), None, Timestamp::EPOCH).await.unwrap();
    store.reserve.release();

    let refused = store.register(registration, None, Timestamp::EPOCH).await;
    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    let refused = store.import(vec![mail("4")]).await;
    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    let now = Timestamp::from_millis(9000);
    let one = Selection::Envelope(ids[0]);
    assert_eq!(store.drop_mail(&recipient(), one, now).await.unwrap(), 1);
    assert_eq!(store.losses(&recipient()).await.unwrap().len(), 1);
    store.forget_losses(&recipient(), now).await.unwrap();
    assert_eq!(store.losses(&recipient()).await.unwrap(), []);
    assert_eq!(store.leave(&recipient(), LeftMail::Drop, now).await.unwrap().dropped, 2);
    assert_eq!(store.registration(&recipient()).await.unwrap(), None);
}

fn invite(token: &[u8]) -> Invite {
    Invite {
        hash: InviteHash::of(token),
        server: None,
        note: String::new(),
        created_at: Timestamp::EPOCH,
        expires_at: Timestamp::from_millis(9000),
    }
}

#[tokio::test]
async fn a_full_disk_lets_mail_be_delivered_withdrawn_or_had_from_elsewhere_and_takes_no_invite() {
    let folder = Folder::new();
    let store = folder.open();
    let mut ids = Vec::new();
    for txn_id in ["1", "2", "3", "4"] {
        let onward = Deposit { onward: Onward::Wanted, ..mail(txn_id) };
        let stored = store.deposit(onward, ROOMY).await.unwrap();
        let Deposited::Stored(id) = stored else { panic!("not stored: {stored:?}") };
        ids.push(id);
    }
    let written = store.invite(invite(b"one")).await.unwrap();
    let InviteOutcome::Created(written) = written else { panic!("not created: {written:?}") };
    store.register(registration("c.example"), None, Timestamp::EPOCH).await.unwrap();
    store.reserve.release();

    let refused = store.invite(invite(b"two")).await;
    assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    assert!(store.hand_on(&recipient(), ids[0], HandedOn::Delivered).await.unwrap());
    store.refuse_onward(&recipient(), ids[1]).await.unwrap();
    let Deposit { recipient: whose, origin, txn_id, content_hash, .. } = mail("3");
    let withdrawn = [Withdrawal { recipient: whose, txn_id, content_hash }];
    assert_eq!(store.withdraw(&origin, &withdrawn).await.unwrap(), 1);
    let had = MailName { origin, txn_id: "4".to_owned(), content_hash };
    let had = [DuplicateKey::named(&recipient(), &had)];
    let done = store.acknowledge_copies(&recipient(), &had, Timestamp::EPOCH).await.unwrap();
    assert_eq!(done.removed, 1);
    assert_eq!(collect(&store).await.0, ["2"]);
    assert_eq!(store.revoke_invite(written).await.unwrap(), Revoked::Yes);
    let lapsed = store.lapse(&lapse_before(9000), None, 10).await.unwrap();
    assert_eq!(lapsed.registrations.len(), 1);
}
