//! c: 300 messages in one room while B is offline, A offline during delivery.

use std::time::Instant;

use restante_testkit::Pair;

use crate::{BULK_DEADLINE, MAIL_DEADLINE, numbered};

const MESSAGES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_messages_of_one_room_arrive_in_order() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", MESSAGES);

    pair.b.go_offline().await;
    pair.alice_sends(&texts).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(MESSAGES, MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    let start = Instant::now();
    pair.b.come_online().await;
    let online = start.elapsed();
    let read = pair.b.client.wait_for_texts(&pair.room, MESSAGES, BULK_DEADLINE).await;
    let visible = start.elapsed();
    println!(
        "start of B to ready {:.1} s, to the last of {MESSAGES} visible {:.1} s",
        online.as_secs_f64(),
        visible.as_secs_f64()
    );
    assert_eq!(read, texts);
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}
