//! w: A gets another signing key while its mail waits, and leaves more.

use restante_testkit::{OldKey, Pair};
use serde_json::{Value, json};

use crate::mail::{has_text, has_to_device};
use crate::{MAIL_DEADLINE, numbered};

const NOTE: &str = "test.note";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_under_both_keys_is_readable_when_both_signed_the_document_that_travels_with_it() {
    let mut pair = Pair::start().await;
    let texts = leave_under_two_keys(&mut pair, OldKey::KeptBeside).await;

    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_under_a_key_that_nobody_vouches_for_waits_until_its_server_is_back() {
    let mut pair = Pair::start().await;
    let texts = leave_under_two_keys(&mut pair, OldKey::Retired).await;

    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..3], "what the old key signed needs nobody");
    wait_until_unverified(&pair).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts[..3]);

    pair.a.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

/// Leaves half of the texts under the first key, and the others with a note under the second. Both sites end offline.
async fn leave_under_two_keys(pair: &mut Pair, old: OldKey) -> Vec<String> {
    let texts = numbered("message", 6);
    pair.b.go_offline().await;
    pair.alice_sends(&texts[..3]).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(3, MAIL_DEADLINE).await;

    pair.a.go_offline().await;
    pair.a.homeserver.change_signing_key(old);
    // Whoever has just looked at a server's keys does not look for another one within a minute, unless it starts anew.
    pair.relay.stop().await;
    pair.relay.start_again().await;
    pair.a.come_online().await;
    let sent = pair.a.client.send_to_device(&pair.b.client, NOTE, json!({ "n": 1 })).await;
    sent.expect("Bob has a device");
    pair.alice_sends(&texts[3..]).await;
    // After a restart Synapse sends the newest events alone; the others go along as a capsule.
    let mailbox = pair.b.mailbox_at(&pair.relay);
    let is_newest = |transaction: &Value| has_text(transaction, &texts[5]);
    mailbox.wait_for_envelope("the newest is at the relay", MAIL_DEADLINE, is_newest).await;
    let is_note = |transaction: &Value| has_to_device(transaction, NOTE);
    mailbox.wait_for_envelope("the note is at the relay", MAIL_DEADLINE, is_note).await;
    pair.a.go_offline().await;
    texts
}

async fn wait_until_unverified(pair: &Pair) {
    let what = "what the new key signed is shown as unverified first contact";
    pair.b
        .node
        .wait_for_status(what, MAIL_DEADLINE, |status| {
            let mut waiting = status["inbox"]["waiting"].as_array()?.iter();
            waiting.find(|entry| entry["state"] == "unverified_first_contact").map(|_| ())
        })
        .await;
}
