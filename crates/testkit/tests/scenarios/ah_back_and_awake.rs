//! ah: a server without a node has backed off from B; B comes back.

use restante_testkit::{World, eventually};

use crate::MAIL_DEADLINE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_server_that_has_backed_off_sends_at_once_when_the_node_is_back() {
    let mut world = World::with_sites(&["b.test"]);
    let c = world.start_stock_site("c.test", "carol").await;
    let mut b = world.start_site("b.test", "bob").await;
    let room = c.client.create_room(&[b.client.user_id()]).await.expect("a room can be made");
    b.client.wait_for_invite(&room, MAIL_DEADLINE).await;
    b.client.join(&room).await.expect("an invited user can join");
    b.client.wait_for_room(&room, MAIL_DEADLINE).await;
    c.client.send_text(&room, "message 1").await.expect("a member may speak");
    b.client.wait_for_texts(&room, 1, MAIL_DEADLINE).await;

    b.go_offline().await;
    // A question that fails makes Synapse back off for ten minutes at once; the message waits behind it.
    let failed = c.client.query_devices("@nobody:b.test").await.expect("C itself answers");
    assert_eq!(failed, ["b.test"]);
    eventually("C has given B up", MAIL_DEADLINE, async || {
        c.homeserver.log().contains("Connection to b.test was unsuccessful").then_some(())
    })
    .await;
    c.client.send_text(&room, "message 2").await.expect("a member may speak");

    b.come_online().await;
    // Without our word the message would come after the ten minutes.
    let read = b.client.wait_for_texts(&room, 2, MAIL_DEADLINE).await;
    assert_eq!(read, ["message 1", "message 2"]);
    assert!(c.homeserver.log().contains("Marking origin 'b.test' as up"), "C had not backed off");
}
