//! ae: B has no node and no relay. A leaves mail with a relay of its own and goes; B comes back, and has it.

use restante_federation_proto::ServerName;
use restante_testkit::{RelayProcess, World, eventually};

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_for_a_homeserver_without_a_relay_is_delivered_by_the_senders_relay() {
    let mut world = World::with_sites(&["a.test"]);
    let mut b = world.start_stock_site("b.test", "bob").await;
    let relay = world.start_impatient_relay("relay").await;
    world.hold_mail_of("a.test", &relay);
    let mut a = world.start_site("a.test", "alice").await;
    let outgoing = |status: &serde_json::Value| {
        status["relays"][0]["registration"]["granted"]["outgoing"].is_object().then_some(())
    };
    a.node.wait_for_status("the relay delivers A's mail onward", MAIL_DEADLINE, outgoing).await;
    let room = a.client.create_room(&[b.client.user_id()]).await.expect("a room can be made");
    b.client.wait_for_invite(&room, MAIL_DEADLINE).await;
    b.client.join(&room).await.expect("an invited user can join");
    b.client.wait_for_room(&room, MAIL_DEADLINE).await;
    eventually("both are in the room", MAIL_DEADLINE, async || {
        let members = a.client.members(&room).await.expect("a member may ask for the members");
        (members.len() == 2).then_some(())
    })
    .await;

    b.go_offline().await;
    let texts = numbered("message", 3);
    for (count, text) in (1..).zip(&texts) {
        a.client.send_text(&room, text).await.expect("a member may speak");
        // Each in a transaction of its own, so that their order is seen.
        wait_for(&relay, b.homeserver.server_name(), "envelopes", count).await;
    }
    a.go_offline().await;

    b.come_online().await;
    assert_eq!(b.client.wait_for_texts(&room, 3, MAIL_DEADLINE).await, texts);
    wait_for(&relay, b.homeserver.server_name(), "delivered_total", 3).await;
    wait_for(&relay, b.homeserver.server_name(), "envelopes", 0).await;
    assert_eq!(b.homeserver.rejected_events(), 0);
}

/// Waits until the relay shows that many in the mailbox of `server`. Typing and the like may come in between.
async fn wait_for(relay: &RelayProcess, server: &ServerName, what: &str, count: u64) {
    eventually("the relay shows its mailbox so", MAIL_DEADLINE, async || {
        let shown = relay.shown_mailbox(server).await;
        let found = shown[what].as_u64().unwrap_or(0);
        let is_so = if count == 0 { found == 0 } else { found >= count };
        is_so.then_some(())
    })
    .await;
}
