//! l: B's clock is ten days ahead, A is offline; PDUs and an encrypted message with its key.

use std::time::Duration;

use restante_testkit::Pair;
use serde_json::Value;

use crate::mail::has_to_device;
use crate::{MAIL_DEADLINE, numbered};

/// Key documents of Synapse are valid for a day.
const TEN_DAYS: Duration = Duration::from_secs(10 * 24 * 3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_waited_ten_days_is_readable_and_so_is_what_was_encrypted() {
    let mut pair = Pair::start().await;
    let carol = pair.a.homeserver.encrypting_client("carol").await;
    let dave = pair.b.homeserver.encrypting_client("dave").await;
    let secrets = carol.create_room(&[dave.user_id()]).await.expect("a room can be made");
    carol.encrypt_room(&secrets).await.expect("its maker may encrypt it");
    dave.wait_for_invite(&secrets, MAIL_DEADLINE).await;
    dave.join(&secrets).await.expect("an invited user can join");
    dave.wait_for_room(&secrets, MAIL_DEADLINE).await;
    carol.wait_until_encrypted(&secrets, MAIL_DEADLINE).await;
    carol.send_text(&secrets, "secret 1").await.expect("a member may speak");
    dave.wait_for_texts(&secrets, 1, MAIL_DEADLINE).await;

    pair.b.go_offline().await;
    pair.alice_sends(&numbered("message", 3)).await;
    // The key of what follows is a to-device message, which no signature of its own protects.
    carol.rotate_room_key(&secrets).await;
    carol.send_text(&secrets, "secret 2").await.expect("a member may speak");
    let mailbox = pair.b.mailbox_at(&pair.relay);
    mailbox.wait_for_texts(3, MAIL_DEADLINE).await;
    let is_encrypted = |transaction: &Value| {
        let mut pdus = transaction["pdus"].as_array().into_iter().flatten();
        pdus.any(|pdu| pdu["type"] == "m.room.encrypted")
    };
    mailbox.wait_for_envelope("the secret is at the relay", MAIL_DEADLINE, is_encrypted).await;
    let is_key = |transaction: &Value| has_to_device(transaction, "m.room.encrypted");
    mailbox.wait_for_envelope("its key is at the relay", MAIL_DEADLINE, is_key).await;
    pair.a.go_offline().await;

    pair.b.set_clock_ahead(TEN_DAYS);
    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, numbered("message", 3));
    let read = dave.wait_for_texts(&secrets, 2, MAIL_DEADLINE).await;
    assert_eq!(read, ["secret 1", "secret 2"]);
    let told = "the relay's clock differs from ours";
    assert!(pair.b.node.log().contains(told), "B's clock is not ahead");
}
