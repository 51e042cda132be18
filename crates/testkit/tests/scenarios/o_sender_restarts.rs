//! o: A restarts while B is offline, and its homeserver sends only the newest event of the room.

use restante_testkit::Pair;
use serde_json::Value;

use crate::mail::has_text;
use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_senders_homeserver_skipped_after_a_restart_is_visible_while_it_is_offline() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", 4);
    pair.b.go_offline().await;

    // Power fails before its node could take any of it.
    pair.a.node.kill().await;
    pair.alice_sends(&texts[..3]).await;
    pair.a.lose_power().await;
    pair.a.come_online().await;
    pair.alice_sends(&texts[3..]).await;
    let mailbox = pair.b.mailbox_at(&pair.relay);
    let is_last = |transaction: &Value| has_text(transaction, &texts[3]);
    mailbox.wait_for_envelope("the newest is at the relay", MAIL_DEADLINE, is_last).await;
    let sent = mailbox.texts().await;
    assert!(!sent.contains(&texts[0]), "the homeserver skips what is not the newest: {sent:?}");
    pair.a.go_offline().await;

    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 4, MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}
