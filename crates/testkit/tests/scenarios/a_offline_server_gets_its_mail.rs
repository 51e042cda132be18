//! a: B offline; A sends three messages; A goes offline; B comes online.

use restante_testkit::Pair;

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_offline_gets_its_mail_while_the_sender_is_offline() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", 3);

    pair.b.go_offline().await;
    pair.alice_sends(&texts).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(3, MAIL_DEADLINE).await;
    pair.a.go_offline().await;
    pair.b.come_online().await;

    assert_eq!(pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_survives_a_power_cut_of_every_machine() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", 3);

    pair.b.lose_power().await;
    pair.alice_sends(&texts).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(3, MAIL_DEADLINE).await;
    pair.a.lose_power().await;
    pair.relay.kill().await;
    pair.relay.start_again().await;
    pair.b.come_online().await;

    assert_eq!(pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await, texts);
}
