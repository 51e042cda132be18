//! g: a to-device message left while B is offline.

use restante_testkit::Pair;
use serde_json::json;

use crate::MAIL_DEADLINE;

const NOTE: &str = "test.note";
const MARKER: &str = "test.marker";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_to_device_message_left_at_the_relay_is_delivered_exactly_once() {
    let mut pair = Pair::start().await;
    pair.b.go_offline().await;
    let note = json!({ "secret": "exactly once" });
    let sent = pair.a.client.send_to_device(&pair.b.client, NOTE, note.clone()).await;
    sent.expect("Bob has a device");
    let mailbox = pair.b.mailbox_at(&pair.relay);
    mailbox
        .wait_for_envelope("the note is at the relay", MAIL_DEADLINE, |transaction| {
            let edus = transaction["edus"].as_array();
            edus.is_some_and(|edus| edus.iter().any(|edu| edu["content"]["type"] == NOTE))
        })
        .await;
    pair.a.go_offline().await;
    pair.b.come_online().await;
    let notes = pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await;
    assert_eq!(notes[0].content, note);

    // B starts once more, and A is back: whoever had it in store may try again. What A sends after
    // that comes behind everything older.
    pair.b.lose_power().await;
    pair.b.come_online().await;
    pair.a.come_online().await;
    let sent = pair.a.client.send_to_device(&pair.b.client, MARKER, json!({ "n": 1 })).await;
    sent.expect("Bob has a device");
    pair.b.client.wait_for_to_device(MARKER, 1, MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
}
