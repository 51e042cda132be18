//! b: A and B are never online together; A writes, B answers, A reads.

use restante_testkit::{Pair, Site};

use crate::MAIL_DEADLINE;

const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_are_never_online_together_hold_a_conversation() {
    let mut pair = Pair::start().await;
    pair.b.go_offline().await;
    let mut said = Vec::new();
    for round in 1..=ROUNDS {
        let Pair { a, b, .. } = &pair;
        say(&pair, a, b, format!("question {round}"), &mut said).await;
        pair.a.go_offline().await;
        pair.b.come_online().await;

        let Pair { a, b, .. } = &pair;
        say(&pair, b, a, format!("answer {round}"), &mut said).await;
        pair.b.go_offline().await;
        pair.a.come_online().await;
    }
    let read = pair.a.client.wait_for_texts(&pair.room, said.len(), MAIL_DEADLINE).await;
    assert_eq!(read, said);
}

/// Whoever speaks has read everything before, and leaves its word at the relay.
async fn say(pair: &Pair, speaker: &Site, listener: &Site, text: String, said: &mut Vec<String>) {
    let read = speaker.client.wait_for_texts(&pair.room, said.len(), MAIL_DEADLINE).await;
    assert_eq!(read, *said);
    speaker.client.send_text(&pair.room, &text).await.expect("a member may speak");
    listener.mailbox_at(&pair.relay).wait_for_texts(1, MAIL_DEADLINE).await;
    said.push(text);
}
