//! ag: of the servers through which a room can be joined, the first is offline.

use restante_testkit::World;

use crate::MAIL_DEADLINE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_first_server_is_offline_is_joined_through_the_next() {
    let mut world = World::with_sites(&["a.test", "b.test", "c.test"]);
    let relay = world.start_relay("relay").await;
    for server in ["a.test", "b.test", "c.test"] {
        world.hold_mail_of(server, &relay);
    }
    // A and B have not met, and what B wrote in the room bears its signature: somebody has to vouch for its key.
    world.trust_as_notary(&relay);
    let a = world.start_site("a.test", "alice").await;
    let mut b = world.start_site("b.test", "bob").await;
    let c = world.start_site("c.test", "carol").await;
    let room = b.client.create_public_room("lobby").await.expect("a room can be made");
    c.client.join_through(&room, &["b.test"]).await.expect("everybody may join");
    c.client.wait_for_room(&room, MAIL_DEADLINE).await;
    b.client.send_text(&room, "welcome").await.expect("a member may speak");
    c.client.wait_for_texts(&room, 1, MAIL_DEADLINE).await;

    b.go_offline().await;
    let joined = a.client.join_through(&room, &["b.test", "c.test"]).await;
    assert_eq!(joined.expect("C lets Alice in"), room);
    a.client.wait_for_room(&room, MAIL_DEADLINE).await;
    // Who spoke while B was away, and that Alice joined, reaches B from the relay.
    a.client.send_text(&room, "hello from A").await.expect("a member may speak");
    let heard = c.client.wait_for_texts(&room, 2, MAIL_DEADLINE).await;
    assert_eq!(heard, ["welcome", "hello from A"]);
    b.come_online().await;
    let heard = b.client.wait_for_texts(&room, 2, MAIL_DEADLINE).await;
    assert_eq!(heard, ["welcome", "hello from A"]);
}
