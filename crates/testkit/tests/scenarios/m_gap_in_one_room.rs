//! m: one transaction with a gap in one room, none in another, and a to-device message.

use restante_relay_api::endpoints::SEND_RELAY;
use restante_testkit::{Pair, share_a_room};
use serde_json::{Value, json};

use crate::MAIL_DEADLINE;
use crate::mail::{has_text, has_to_device};

const NOTE: &str = "test.note";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_one_room_holds_up_neither_another_room_nor_a_to_device_message() {
    let (mut pair, meddler) = Pair::start_with_meddler().await;
    let other = share_a_room(&pair.a, &pair.b).await;
    pair.b.go_offline().await;

    // While the first deposit is under way, the homeserver gathers the rest in one transaction.
    meddler.hold(SEND_RELAY);
    let alice = &pair.a.client;
    alice.send_text(&pair.room, "first").await.expect("a member may speak");
    meddler.wait_until_played(1, MAIL_DEADLINE).await;
    alice.send_text(&pair.room, "second").await.expect("a member may speak");
    alice.send_text(&other, "elsewhere").await.expect("a member may speak");
    let sent = alice.send_to_device(&pair.b.client, NOTE, json!({ "n": 1 })).await;
    sent.expect("Bob has a device");
    meddler.behave();
    let mailbox = pair.b.mailbox_at(&pair.relay);
    let is_mixed = |transaction: &Value| {
        has_text(transaction, "second")
            && has_text(transaction, "elsewhere")
            && has_to_device(transaction, NOTE)
            && !has_text(transaction, "first")
    };
    mailbox.wait_for_envelope("one transaction has it all", MAIL_DEADLINE, is_mixed).await;
    pair.a.go_offline().await;

    meddler.drop_mail(|transaction| has_text(transaction, "first"));
    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&other, 1, MAIL_DEADLINE).await;
    assert_eq!(read, ["elsewhere"]);
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
    assert!(pair.b.client.texts(&pair.room).await.is_empty(), "what depends on the gap waits");

    pair.a.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, ["first", "second"]);
    assert_eq!(pair.b.client.texts(&other).await, ["elsewhere"], "nothing arrives twice");
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
}
