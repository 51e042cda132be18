//! What ends when servers are silent, where somebody calls meanwhile or the database is damaged.

use super::*;
use crate::Lapsed;

/// A store in which a server registered at 1000, and what lapsing found in it at 2000.
async fn with_silent_server(folder: &Folder) -> (SqliteStore, lapse::Page) {
    let store = folder.open();
    let now = Timestamp::from_millis(1000);
    store.register(registration("b.example"), None, now).await.unwrap();
    let find = |connection: &Connection| lapse::find(connection, &lapse_before(2000), None, 10);
    let page = store.database.read(find).await.unwrap();
    assert_eq!(page.candidates, [recipient()]);
    (store, page)
}

/// Nothing of what was found ends.
async fn nothing_ends(store: &SqliteStore, page: lapse::Page) {
    let end = move |connection: &Connection| lapse::end(connection, &lapse_before(2000), page);
    let lapsed = store.database.write(end).await.unwrap();
    assert_eq!(lapsed, Lapsed { last: Some(recipient()), ..Lapsed::default() });
    assert!(store.registration(&recipient()).await.unwrap().is_some());
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.registrations, totals.mailboxes), (1, 1));
}

#[tokio::test]
async fn whoever_calls_between_the_look_and_the_write_stays_registered() {
    let folder = Folder::new();
    let (store, page) = with_silent_server(&folder).await;
    store.note_call(&recipient(), Timestamp::from_millis(3000)).await.unwrap();
    nothing_ends(&store, page).await;
}

#[tokio::test]
async fn whom_the_operator_admits_between_the_look_and_the_write_stays_registered() {
    let folder = Folder::new();
    let (store, page) = with_silent_server(&folder).await;
    let admitted = Registration { admitted_by: AdmittedBy::Operator, ..registration("b.example") };
    store.register(admitted, None, Timestamp::from_millis(1000)).await.unwrap();
    nothing_ends(&store, page).await;
}

#[tokio::test]
async fn a_mailbox_to_which_mail_comes_while_its_owner_leaves_goes_no_sooner_than_others() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    let give_up = |connection: &Connection| lapse::give_up(connection, &recipient());
    store.database.write(give_up).await.unwrap();
    acknowledge(&store, &ids).await;

    assert_eq!(store.lapse(&lapse_before(1000), None, 10).await.unwrap().mailboxes, []);
    assert_eq!(store.lapse(&lapse_before(1001), None, 10).await.unwrap().mailboxes.len(), 1);
}

#[tokio::test]
async fn a_mailbox_whose_counter_is_damaged_stays_with_its_mail() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1"]).await;
    let outside = Connection::open(folder.path()).unwrap();
    assert_eq!(outside.execute("UPDATE mailboxes SET envelopes = 0", []).unwrap(), 1);

    assert_eq!(store.lapse(&lapse_before(9000), None, 10).await.unwrap().mailboxes, []);

    assert_eq!(collect(&store).await.0, ["1"]);
}
