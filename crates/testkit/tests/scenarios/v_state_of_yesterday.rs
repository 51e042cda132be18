//! v: both nodes lose their state, or get it back from a copy of yesterday.

use restante_testkit::{Pair, eventually};

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_both_nodes_get_a_copy_of_their_state_back() {
    let mut pair = Pair::start().await;
    pair.a.node.stop().await;
    pair.b.node.stop().await;
    let yesterday = (pair.a.node.back_up_state(), pair.b.node.back_up_state());
    pair.a.node.start_again().await;
    pair.b.node.start_again().await;
    let texts = numbered("message", 8);

    let mut sent = 0;
    for until in [3, 6] {
        hand_over(&mut pair, &texts, sent..until).await;
        sent = until;
        pair.a.node.restore_state(&yesterday.0);
        pair.b.node.restore_state(&yesterday.1);
    }
    hand_over(&mut pair, &texts, sent..texts.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_both_nodes_lose_their_state() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", 6);
    hand_over(&mut pair, &texts, 0..3).await;
    pair.a.node.lose_state();
    pair.b.node.lose_state();
    hand_over(&mut pair, &texts, 3..6).await;
}

/// Alice sends a part of `texts` while Bob is offline, and Bob reads all up to there while she is. Both end offline.
async fn hand_over(pair: &mut Pair, texts: &[String], part: std::ops::Range<usize>) {
    if pair.b.node.is_started() {
        pair.b.go_offline().await;
    }
    if !pair.a.node.is_started() {
        pair.a.come_online().await;
    }
    let until = part.end;
    pair.alice_sends(&texts[part]).await;
    // After a restart Synapse sends the newest event alone; the others go along as a capsule.
    let newest = &texts[until - 1];
    let mailbox = pair.b.mailbox_at(&pair.relay);
    eventually("the newest message is at the relay", MAIL_DEADLINE, async || {
        mailbox.texts().await.contains(newest).then_some(())
    })
    .await;
    pair.a.go_offline().await;
    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, until, MAIL_DEADLINE).await;
    assert_eq!(read, texts[..until]);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    pair.b.go_offline().await;
}
