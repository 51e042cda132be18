//! e: relay, node B, and node A are killed in the middle of 300 messages, and start again.

use restante_testkit::{Pair, eventually};
use serde_json::Value;

use crate::mail::has_text;
use crate::{BULK_DEADLINE, MAIL_DEADLINE, numbered};

const MESSAGES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_relay_and_node_are_killed_while_they_hand_mail_over() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", MESSAGES);
    pair.b.go_offline().await;
    pair.alice_sends(&texts).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(MESSAGES, MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    // Once while the node collects, and once while it delivers.
    pair.b.come_online().await;
    tokio::join!(pair.relay.kill(), pair.b.node.kill());
    pair.relay.start_again().await;
    pair.b.node.start_again().await;
    pair.b.client.wait_for_texts(&pair.room, MESSAGES / 6, BULK_DEADLINE).await;
    tokio::join!(pair.relay.kill(), pair.b.node.kill());
    pair.relay.start_again().await;
    pair.b.node.start_again().await;
    pair.b.client.wait_for_texts(&pair.room, MESSAGES / 2, BULK_DEADLINE).await;
    pair.b.node.kill().await;
    pair.b.node.start_again().await;

    let read = pair.b.client.wait_for_texts(&pair.room, MESSAGES, BULK_DEADLINE).await;
    assert_eq!(read, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_the_senders_node_is_killed_while_it_deposits() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", MESSAGES);
    pair.b.go_offline().await;

    let Pair { a, b, relay, room, .. } = &mut pair;
    let (relay, mailbox) = (&*relay, b.mailbox_at(relay));
    let sending = async {
        for text in &texts {
            a.client.send_text(room, text).await.expect("a member may speak");
        }
    };
    let killing = async {
        for deposits in [1, 3] {
            let what = format!("A's node has begun {deposits} deposits");
            let begun = async || (relay.deposits_asked() >= deposits).then_some(());
            eventually(&what, MAIL_DEADLINE, begun).await;
            a.node.kill().await;
            a.node.start_again().await;
        }
    };
    tokio::join!(sending, killing);
    let what = format!("the last of {MESSAGES} messages is at the relay");
    let is_last = |transaction: &Value| has_text(transaction, &texts[MESSAGES - 1]);
    mailbox.wait_for_envelope(&what, BULK_DEADLINE, is_last).await;
    pair.a.go_offline().await;
    pair.b.come_online().await;

    let read = pair.b.client.wait_for_texts(&pair.room, MESSAGES, BULK_DEADLINE).await;
    assert_eq!(read, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}
