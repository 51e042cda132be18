//! h: a relay alters an EDU, or a PDU, or drops one envelope.

use restante_testkit::{Pair, RelayProcess, share_a_room};
use serde_json::{Value, json};

use crate::mail::{has_text, has_to_device};
use crate::{BULK_DEADLINE, MAIL_DEADLINE, numbered};

const NOTE: &str = "test.note";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_to_device_message_is_refused_and_the_true_one_comes_through_another_relay() {
    let (mut pair, meddler, second) = Pair::start_with_meddler_and_second_relay().await;
    pair.b.go_offline().await;
    let sent = pair.a.client.send_to_device(&pair.b.client, NOTE, json!({ "n": "true" })).await;
    sent.expect("Bob has a device");
    for relay in [&pair.relay, &second] {
        let mailbox = pair.b.mailbox_at(relay);
        let has_note = |transaction: &Value| has_to_device(transaction, NOTE);
        mailbox.wait_for_envelope("the note is at both relays", MAIL_DEADLINE, has_note).await;
    }
    pair.alice_sends(&numbered("message", 1)).await;
    pair.b.mailbox_at(&second).wait_for_texts(1, MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    meddler.forge_mail(|transaction| {
        for edu in transaction["edus"].as_array_mut().into_iter().flatten() {
            let devices = edu["content"]["messages"].as_object_mut();
            for device in devices.into_iter().flat_map(|users| users.values_mut()) {
                *device = json!({ "*": { "n": "false" } });
            }
        }
    });
    pair.b.come_online().await;
    wait_until_reported(&pair).await;
    let notes = pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await;
    assert_eq!(notes[0].content, json!({ "n": "true" }));
    let read = pair.b.client.wait_for_texts(&pair.room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, numbered("message", 1));
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_event_is_refused_and_holds_up_only_what_depends_on_it() {
    let (mut pair, meddler) = Pair::start_with_meddler().await;
    let elsewhere = share_a_room(&pair.a, &pair.b).await;
    pair.b.go_offline().await;
    leave_in_two_rooms(&pair, &[&pair.relay], &elsewhere).await;
    pair.a.go_offline().await;

    meddler.forge_mail(|transaction| {
        for pdu in transaction["pdus"].as_array_mut().into_iter().flatten() {
            if pdu["content"]["body"] == "first" {
                pdu["content"]["body"] = "altered".into();
            }
        }
    });
    pair.b.come_online().await;
    wait_until_reported(&pair).await;
    goes_on_elsewhere(&pair, &elsewhere).await;

    pair.a.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_dropped_envelope_goes_on_when_another_relay_brings_it() {
    let (mut pair, meddler, mut second) = Pair::start_with_meddler_and_second_relay().await;
    let elsewhere = share_a_room(&pair.a, &pair.b).await;
    pair.b.go_offline().await;
    leave_in_two_rooms(&pair, &[&pair.relay, &second], &elsewhere).await;
    pair.a.go_offline().await;
    second.stop().await;

    meddler.drop_mail(|transaction| has_text(transaction, "first"));
    pair.b.come_online().await;
    goes_on_elsewhere(&pair, &elsewhere).await;

    second.start_again().await;
    // It was asked in vain for a minute, and the pauses have grown as long.
    let read = pair.b.client.wait_for_texts(&pair.room, 2, BULK_DEADLINE).await;
    assert_eq!(read, ["first", "second"]);
}

/// Leaves "first" and "second" in the room, each in its envelope, and "elsewhere" in another.
async fn leave_in_two_rooms(pair: &Pair, relays: &[&RelayProcess], elsewhere: &str) {
    let told = [("first", &*pair.room), ("second", &*pair.room), ("elsewhere", elsewhere)];
    for (count, (text, room)) in told.into_iter().enumerate() {
        pair.a.client.send_text(room, text).await.expect("a member may speak");
        for relay in relays {
            pair.b.mailbox_at(relay).wait_for_texts(count + 1, MAIL_DEADLINE).await;
        }
    }
}

/// A relay that is down is waited for before the order is given up, and so is what it may have.
async fn goes_on_elsewhere(pair: &Pair, elsewhere: &str) {
    let read = pair.b.client.wait_for_texts(elsewhere, 1, BULK_DEADLINE).await;
    assert_eq!(read, ["elsewhere"]);
    let waits = pair.b.client.texts(&pair.room).await;
    assert!(waits.is_empty(), "what depends on it waits, but: {waits:?}");
}

/// The operator is told which relay gave forged mail.
async fn wait_until_reported(pair: &Pair) {
    let relay = pair.relay.server_name().as_str();
    let what = format!("the status reports what relay {relay} gave");
    pair.b
        .node
        .wait_for_status(&what, MAIL_DEADLINE, |status| {
            let waiting = status["inbox"]["waiting"].as_array()?;
            let mut reasons = waiting.iter().filter_map(|entry| entry["reason"].as_str());
            reasons.find(|reason| reason.contains(relay)).map(|_| ())
        })
        .await;
}
