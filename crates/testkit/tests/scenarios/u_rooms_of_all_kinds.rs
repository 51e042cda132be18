//! u: mail for a room that was left meanwhile, from a user who was banned meanwhile, a withdrawn message, and a room that
//! went on on both sides.

use restante_testkit::{Pair, eventually, share_a_room};
use serde_json::json;

use crate::MAIL_DEADLINE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_changed_on_both_sides_hold_nothing_up() {
    let mut pair = Pair::start().await;
    let left = share_a_room(&pair.a, &pair.b).await;
    let banned = share_a_room(&pair.b, &pair.a).await;
    pair.b.go_offline().await;
    let withdrawn =
        pair.a.client.send_text(&pair.room, "withdrawn").await.expect("a member may speak");
    pair.a.client.redact(&pair.room, &withdrawn).await.expect("the author may withdraw it");
    pair.a.client.send_text(&left, "to nobody").await.expect("a member may speak");
    pair.a.client.send_text(&banned, "from one who is banned").await.expect("a member may speak");
    pair.a.client.send_text(&pair.room, "from A").await.expect("a member may speak");
    pair.b.mailbox_at(&pair.relay).wait_for_texts(4, MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    // B goes on before its node gets the mail: it leaves one room, bans Alice from another, whose message is then
    // soft-failed, and writes in the third.
    pair.b.homeserver.start_again().await;
    pair.b.client.leave(&left).await.expect("a member may leave");
    let alice = pair.a.client.user_id();
    let ban =
        pair.b.client.put_state(&banned, ("m.room.member", alice), json!({ "membership": "ban" }));
    ban.await.expect("Bob made the room");
    pair.b.client.send_text(&pair.room, "from B").await.expect("a member may speak");
    pair.b.link.restore().await;
    pair.b.node.start_again().await;
    eventually("A's message stands beside B's", MAIL_DEADLINE, async || {
        let texts = pair.b.client.texts(&pair.room).await;
        texts.iter().any(|text| text == "from A").then_some(())
    })
    .await;
    eventually("A's withdrawal arrives", MAIL_DEADLINE, async || {
        let timeline = pair.b.client.timeline(&pair.room).await;
        timeline.iter().any(|event| event.kind == "m.room.redaction").then_some(())
    })
    .await;
    wait_until_nothing_waits(&pair).await;
    assert!(pair.b.client.texts(&banned).await.is_empty(), "a banned user's message is visible");

    // What follows both sides arrives at both.
    pair.a.come_online().await;
    eventually("B's message reaches A", MAIL_DEADLINE, async || {
        let texts = pair.a.client.texts(&pair.room).await;
        texts.iter().any(|text| text == "from B").then_some(())
    })
    .await;
    pair.a.client.send_text(&pair.room, "after both").await.expect("a member may speak");
    eventually("the rooms are one again", MAIL_DEADLINE, async || {
        let texts = pair.b.client.texts(&pair.room).await;
        texts.iter().any(|text| text == "after both").then_some(())
    })
    .await;
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

async fn wait_until_nothing_waits(pair: &Pair) {
    eventually("the inbox and the backlogs are empty", MAIL_DEADLINE, async || {
        let status = pair.b.node.status().await;
        let envelopes = status["inbox"]["waiting"].as_array()?;
        let rooms = status["inbox"]["backlog"].as_array()?;
        (envelopes.is_empty() && rooms.is_empty()).then_some(())
    })
    .await;
}
