//! z: mail without a proof, as a Dendrite node leaves it.

use restante_relay_api::endpoints::{COLLECT, PROOF_MEMBER};
use restante_testkit::{Letter, Meddler, Pair, eventually};
use serde_json::{Value, json};

use crate::mail::{messages, to_device};
use crate::{MAIL_DEADLINE, numbered};

const NOTE: &str = "test.note";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_left_without_a_proof_are_delivered_on_their_own_and_edus_are_parked() {
    let Unproven { mut pair, texts, messages, notes, _meddler } = Unproven::prepare().await;
    pair.a.leave_without_proof(&pair.relay, &letter("dendrite", &messages, &notes)).await;
    pair.b.come_online().await;

    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    wait_until_parked(&pair, |entry| {
        let reason = entry["reason"].as_str().unwrap_or_default();
        entry["txn_id"] == "dendrite" && reason.contains("without its origin's proof")
    })
    .await;
    assert!(pair.b.client.to_device().await.is_empty(), "nothing shows who sent it");
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_under_a_wrong_signature_is_parked_and_the_true_one_is_taken_later() {
    let Unproven { mut pair, texts, messages, _meddler: meddler, .. } = Unproven::prepare().await;
    let mut wrong = messages.clone();
    wrong[2]["signatures"] = messages[1]["signatures"].clone();
    pair.a.leave_without_proof(&pair.relay, &letter("wrong", &wrong, &[])).await;
    pair.b.come_online().await;

    let read = pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..2]);
    let is_event = |entry: &Value| entry["id"].as_str().is_some_and(|id| id.starts_with("event-"));
    wait_until_parked(&pair, is_event).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts[..2]);

    // What A's node left comes after all.
    meddler.behave();
    pair.b.node.stop().await;
    pair.b.node.start_again().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}

/// Both sites are offline. Of what A left, B gets nothing that has a proof.
struct Unproven {
    pair: Pair,
    texts: Vec<String>,
    /// Alice's messages, as her homeserver made them.
    messages: Vec<Value>,
    /// Alice's note, likewise.
    notes: Vec<Value>,
    _meddler: Meddler,
}

impl Unproven {
    async fn prepare() -> Self {
        let (mut pair, meddler) = Pair::start_with_meddler().await;
        let texts = numbered("message", 3);
        pair.b.go_offline().await;
        pair.alice_sends(&texts).await;
        let sent = pair.a.client.send_to_device(&pair.b.client, NOTE, json!({ "n": 1 })).await;
        sent.expect("Bob has a device");
        let (relay, b) = (&pair.relay, &pair.b);
        let (messages, notes) = eventually("all is at the relay", MAIL_DEADLINE, async || {
            let envelopes = b.mailbox_at(relay).envelopes().await;
            let (messages, notes) = (messages(&envelopes), to_device(&envelopes, NOTE));
            (messages.len() == 3 && notes.len() == 1).then_some((messages, notes))
        })
        .await;
        pair.a.go_offline().await;
        meddler.alter(COLLECT, |answer| {
            if let Some(envelopes) = answer["envelopes"].as_array_mut() {
                envelopes.retain(|envelope| envelope[PROOF_MEMBER].is_null());
            }
        });
        Self { pair, texts, messages, notes, _meddler: meddler }
    }
}

fn letter(txn_id: &str, pdus: &[Value], edus: &[Value]) -> Letter {
    Letter {
        recipient: "b.test".parse().expect("it is a server name"),
        txn_id: txn_id.to_owned(),
        pdus: pdus.to_vec(),
        edus: edus.to_vec(),
    }
}

/// The operator is told of something that `is_wanted`.
async fn wait_until_parked(pair: &Pair, is_wanted: impl Fn(&Value) -> bool) {
    eventually("it is parked", MAIL_DEADLINE, async || {
        pair.b.node.parked().await.iter().any(&is_wanted).then_some(())
    })
    .await;
}
