//! y: mail under one transaction id whose body grows. B's homeserver takes each id once, and remembers it for a day.

use restante_relay_api::endpoints::COLLECT;
use restante_testkit::{Letter, Meddler, Pair, eventually};
use serde_json::{Value, json};

use crate::mail::{messages, to_device};
use crate::{MAIL_DEADLINE, numbered};

const NOTE: &str = "test.note";
const SECOND_NOTE: &str = "test.second_note";

/// What the letters go by.
const TXN_ID: &str = "grown";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_grew_before_it_was_delivered_takes_effect_once_as_a_whole() {
    let Growth { mut pair, texts, messages, notes, _meddler } = Growth::prepare().await;
    pair.a.leave_by_hand(&pair.relay, &letter(&messages[..1], &[])).await;
    pair.a.leave_by_hand(&pair.relay, &letter(&messages[..2], &notes[..1])).await;
    pair.b.come_online().await;

    let read = pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..2]);
    assert_eq!(pair.b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
    wait_until_nothing_waits(&pair).await;
    assert!(pair.b.node.parked().await.is_empty(), "nothing is left over");
    assert_eq!(pair.b.client.texts(&pair.room).await, texts[..2], "nothing arrives twice");
    assert_eq!(pair.b.client.to_device().await.len(), 1, "nothing arrives twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_grew_by_after_it_was_delivered_is_not_taken_for_a_repetition() {
    let Growth { mut pair, texts, messages, notes, _meddler } = Growth::prepare().await;
    pair.a.leave_by_hand(&pair.relay, &letter(&messages[..1], &notes[..1])).await;
    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..1]);

    pair.a.leave_by_hand(&pair.relay, &letter(&messages[..2], &notes[..1])).await;
    let read = pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..2]);
    wait_until_nothing_waits(&pair).await;
    assert!(pair.b.node.parked().await.is_empty(), "all of it was delivered");

    // An EDU can come only in its origin's name, and that name was used up.
    pair.a.leave_by_hand(&pair.relay, &letter(&messages, &notes)).await;
    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    wait_until_nothing_waits(&pair).await;
    let parked = pair.b.node.parked().await;
    let reasons: Vec<_> = parked.iter().filter_map(|entry| entry["reason"].as_str()).collect();
    let says_why = reasons.iter().any(|reason| reason.contains("another body under the same"));
    assert!(
        says_why && parked.len() == 1,
        "the operator is told what was not delivered: {parked:?}"
    );

    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
    let notes = pair.b.client.to_device().await;
    assert_eq!(notes.len(), 1, "nothing arrives twice: {notes:?}");
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

/// Both sites are offline. Of what A left, B gets nothing but letters with [`TXN_ID`].
struct Growth {
    pair: Pair,
    texts: Vec<String>,
    /// Alice's messages, as her homeserver made them.
    messages: Vec<Value>,
    /// Alice's notes, likewise.
    notes: Vec<Value>,
    _meddler: Meddler,
}

impl Growth {
    async fn prepare() -> Self {
        let (mut pair, meddler) = Pair::start_with_meddler().await;
        let texts = numbered("message", 3);
        pair.b.go_offline().await;
        pair.alice_sends(&texts).await;
        for kind in [NOTE, SECOND_NOTE] {
            let sent = pair.a.client.send_to_device(&pair.b.client, kind, json!({ "n": 1 })).await;
            sent.expect("Bob has a device");
        }
        let (relay, b) = (&pair.relay, &pair.b);
        let (messages, notes) = eventually("all is at the relay", MAIL_DEADLINE, async || {
            let envelopes = b.mailbox_at(relay).envelopes().await;
            let (first, second) = (to_device(&envelopes, NOTE), to_device(&envelopes, SECOND_NOTE));
            let (messages, notes) = (messages(&envelopes), [first, second].concat());
            (messages.len() == 3 && notes.len() == 2).then_some((messages, notes))
        })
        .await;
        pair.a.go_offline().await;
        meddler.alter(COLLECT, |answer| {
            if let Some(envelopes) = answer["envelopes"].as_array_mut() {
                envelopes.retain(|envelope| envelope["txn_id"] == TXN_ID);
            }
        });
        Self { pair, texts, messages, notes, _meddler: meddler }
    }
}

fn letter(pdus: &[Value], edus: &[Value]) -> Letter {
    Letter {
        recipient: "b.test".parse().expect("it is a server name"),
        txn_id: TXN_ID.to_owned(),
        pdus: pdus.to_vec(),
        edus: edus.to_vec(),
    }
}

async fn wait_until_nothing_waits(pair: &Pair) {
    pair.b
        .node
        .wait_for_status("the inbox and the backlogs are empty", MAIL_DEADLINE, |status| {
            let mut envelopes = status["inbox"]["waiting"].as_array()?.iter();
            let rooms = status["inbox"]["backlog"].as_array()?;
            (envelopes.all(|entry| entry["state"] == "parked") && rooms.is_empty()).then_some(())
        })
        .await;
}
