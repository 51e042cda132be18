//! d: two relays, the second down for the first half of the mail; B comes online with only the second up, later both.

use restante_testkit::Pair;

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_spread_over_two_relays_arrives_once_and_in_order() {
    let (mut pair, mut second) = Pair::start_with_second_relay().await;
    let texts = numbered("message", 6);

    pair.b.go_offline().await;
    second.stop().await;
    pair.alice_sends(&texts[..3]).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(3, MAIL_DEADLINE).await;
    second.start_again().await;
    pair.alice_sends(&texts[3..]).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(6, MAIL_DEADLINE).await;
    pair.b.mailbox_at(&second).wait_for_texts(3, MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    // The second half comes first.
    pair.relay.stop().await;
    pair.b.come_online().await;
    pair.b.mailbox_at(&second).wait_until_empty(MAIL_DEADLINE).await;
    pair.relay.start_again().await;

    let read = pair.b.client.wait_for_texts(&pair.room, 6, MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}
