//! q: B away for 1,000 messages over 20 rooms, A offline during delivery.

use std::time::Instant;

use restante_testkit::{Pair, share_a_room};

use crate::{BULK_DEADLINE, numbered};

const ROOMS: usize = 20;
const MESSAGES_A_ROOM: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_over_twenty_rooms_arrive() {
    let mut pair = Pair::start().await;
    let mut rooms = vec![pair.room.clone()];
    while rooms.len() < ROOMS {
        rooms.push(share_a_room(&pair.a, &pair.b).await);
    }
    let texts = numbered("message", MESSAGES_A_ROOM);

    pair.b.go_offline().await;
    for text in &texts {
        for room in &rooms {
            pair.a.client.send_text(room, text).await.expect("a member may speak");
        }
    }
    let mailbox = pair.b.mailbox_at(&pair.relay);
    mailbox.wait_for_texts(ROOMS * MESSAGES_A_ROOM, BULK_DEADLINE).await;
    pair.a.go_offline().await;

    let start = Instant::now();
    pair.b.come_online().await;
    for room in &rooms {
        let read = pair.b.client.wait_for_texts(room, MESSAGES_A_ROOM, BULK_DEADLINE).await;
        assert_eq!(read, texts, "{room}");
    }
    println!(
        "{} messages over {ROOMS} rooms visible {:.1} s after the start of B; peak memory of B's node {} MiB, of the relay {} MiB",
        ROOMS * MESSAGES_A_ROOM,
        start.elapsed().as_secs_f64(),
        pair.b.node.peak_memory_mib().map_or("?".to_owned(), |mib| mib.to_string()),
        pair.relay.peak_memory_mib().map_or("?".to_owned(), |mib| mib.to_string()),
    );
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}
