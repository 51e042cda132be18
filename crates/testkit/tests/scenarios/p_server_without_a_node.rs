//! p: three servers in one room, one of them without a node; only A's relay mail is left when B comes back.

use restante_testkit::{Site, World, eventually, share_a_room};

use crate::MAIL_DEADLINE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_server_without_a_node_come_with_the_mail_of_one_that_has_it() {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    let mut c = world.start_stock_site("c.test", "carol").await;
    let relay = world.start_relay("relay").await;
    world.hold_mail_of("a.test", &relay);
    world.hold_mail_of("b.test", &relay);
    let mut a = world.start_site("a.test", "alice").await;
    let mut b = world.start_site("b.test", "bob").await;
    let room = share_a_room(&a, &b).await;
    a.client.invite(&room, c.client.user_id()).await.expect("a member may invite");
    c.client.wait_for_invite(&room, MAIL_DEADLINE).await;
    c.client.join(&room).await.expect("an invited user can join");
    c.client.wait_for_room(&room, MAIL_DEADLINE).await;
    wait_until_three_are_in(&room, &a).await;
    wait_until_three_are_in(&room, &b).await;

    b.go_offline().await;
    let said = ["Carol 1", "Alice 1", "Carol 2", "Alice 2"];
    for (count, text) in said.into_iter().enumerate() {
        // Whoever speaks has read everything before.
        let (speaker, listener) = match text.starts_with("Carol") {
            true => (&c.client, &a.client),
            false => (&a.client, &c.client),
        };
        speaker.send_text(&room, text).await.expect("a member may speak");
        listener.wait_for_texts(&room, count + 1, MAIL_DEADLINE).await;
    }
    b.mailbox_at(&relay).wait_for_texts(2, MAIL_DEADLINE).await;
    tokio::join!(a.go_offline(), c.go_offline());

    b.come_online().await;
    assert_eq!(b.client.wait_for_texts(&room, said.len(), MAIL_DEADLINE).await, said);
    assert_eq!(b.homeserver.rejected_events(), 0);
}

async fn wait_until_three_are_in(room: &str, site: &Site) {
    eventually("all three are in the room", MAIL_DEADLINE, async || {
        let members = site.client.members(room).await.expect("a member may ask for the members");
        (members.len() == 3).then_some(())
    })
    .await;
}
