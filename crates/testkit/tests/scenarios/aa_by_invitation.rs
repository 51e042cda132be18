//! aa: a relay serves whom it invited. B joins by the line that the relay's operator gave, and leaves again.

use restante_testkit::{World, share_a_room};

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_held_for_a_server_from_its_invitation_until_it_leaves() {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    let relay = world.start_invited_relay("relay").await;
    let mut b = world.start_site("b.test", "bob").await;
    world.hold_mail_of("b.test", &relay);
    let mut a = world.start_site("a.test", "alice").await;
    let room = share_a_room(&a, &b).await;

    let line = relay.invite(b.homeserver.server_name()).await;
    let (without_invite, _) = line.split_once("&invite=").expect("a line holds an invite");
    let refused = b.node.join(without_invite).await.expect_err("the relay wants an invite");
    assert!(refused.contains("refuses") && refused.contains("restante relays join"), "{refused}");
    b.node.join(&line).await.expect("B was invited");
    let used = a.node.join(&line).await.expect_err("an invite admits one server once");
    assert!(used.contains("refuses"), "{used}");

    let texts = numbered("message", 3);
    b.go_offline().await;
    for text in &texts {
        a.client.send_text(&room, text).await.expect("a member may speak");
    }
    b.mailbox_at(&relay).wait_for_texts(3, MAIL_DEADLINE).await;
    a.go_offline().await;
    b.come_online().await;
    assert_eq!(b.client.wait_for_texts(&room, 3, MAIL_DEADLINE).await, texts);

    // After the restart it registered again, without an invite.
    let registered = |status: &serde_json::Value| {
        (status["relays"][0]["registration"]["state"] == "registered").then_some(())
    };
    b.node.wait_for_status("B is registered again", MAIL_DEADLINE, registered).await;
    b.node.leave(relay.server_name(), "keep").await.expect("the relay can be told");
    let left = |status: &serde_json::Value| {
        status["relays"].as_array().is_some_and(Vec::is_empty).then_some(())
    };
    b.node.wait_for_status("the relay is empty and left", MAIL_DEADLINE, left).await;

    b.go_offline().await;
    a.come_online().await;
    a.client.send_text(&room, "message 4").await.expect("a member may speak");
    let refused = |status: &serde_json::Value| {
        let refusals = status["refusals"].as_array()?;
        refusals.iter().any(|refusal| refusal["destination"] == "b.test").then_some(())
    };
    a.node.wait_for_status("the relay takes nothing more", MAIL_DEADLINE, refused).await;
}
