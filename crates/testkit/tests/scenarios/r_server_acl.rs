//! r: A is denied by the room's server ACL after its mail was left.

use restante_testkit::{Pair, Site, eventually, share_a_room};
use serde_json::{Value, json};

use crate::mail::has_text;
use crate::{MAIL_DEADLINE, numbered};

/// Who turned the events away says so.
const BY_NODE: &str = "server ACL denies";
const BY_HOMESERVER: &str = "banned from room";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_of_a_server_that_a_room_has_denied_since_is_not_delivered() {
    let mut pair = Pair::start().await;
    let denied = share_a_room(&pair.b, &pair.a).await;
    pair.b.go_offline().await;
    leave(&pair, &denied, &numbered("denied", 2)).await;
    pair.a.go_offline().await;

    deny_and_come_online(&mut pair.b, &denied).await;
    let read = pair.b.client.wait_for_texts(&pair.room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, ["allowed"]);
    wait_until_settled(&pair).await;
    assert_denied(&pair, &denied).await;

    // Nor does it come directly, or with what comes after.
    pair.a.come_online().await;
    pair.a.client.send_text(&denied, "denied 3").await.expect("A does not know that it is denied");
    pair.alice_sends(&numbered("after", 1)).await;
    pair.b.client.wait_for_texts(&pair.room, 2, MAIL_DEADLINE).await;
    // Nor when the operator insists.
    pair.b.node.retry_parked().await;
    wait_until_settled(&pair).await;
    assert_denied(&pair, &denied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_waited_behind_a_gap_is_not_delivered_once_its_server_is_denied() {
    let (mut pair, meddler) = Pair::start_with_meddler().await;
    let denied = share_a_room(&pair.b, &pair.a).await;
    pair.b.go_offline().await;
    leave(&pair, &denied, &numbered("denied", 2)).await;
    pair.a.go_offline().await;

    meddler.drop_mail(|transaction| has_text(transaction, "denied 1"));
    deny_and_come_online(&mut pair.b, &denied).await;
    let read = pair.b.client.wait_for_texts(&pair.room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, ["allowed"]);
    // The gap closes: what the relay held back is asked for again.
    meddler.behave();
    pair.b.node.stop().await;
    pair.b.node.start_again().await;
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    wait_until_settled(&pair).await;
    assert_denied(&pair, &denied).await;
}

/// Leaves `texts` in the room `denied`, each in its envelope, and "allowed" in the other.
async fn leave(pair: &Pair, denied: &str, texts: &[String]) {
    let mailbox = pair.b.mailbox_at(&pair.relay);
    for (count, text) in texts.iter().enumerate() {
        pair.a.client.send_text(denied, text).await.expect("a member may speak");
        mailbox.wait_for_texts(count + 1, MAIL_DEADLINE).await;
    }
    pair.alice_sends(&["allowed".to_owned()]).await;
    mailbox.wait_for_texts(texts.len() + 1, MAIL_DEADLINE).await;
}

/// Bob denies A before his node gets any mail.
async fn deny_and_come_online(b: &mut Site, room: &str) {
    b.homeserver.start_again().await;
    let acl = json!({ "allow": ["*"], "deny": ["a.test"], "allow_ip_literals": true });
    b.client.put_state(room, ("m.room.server_acl", ""), acl).await.expect("Bob made the room");
    b.link.restore().await;
    b.node.start_again().await;
}

/// The operator sees what was denied, and no envelope waits.
async fn wait_until_settled(pair: &Pair) {
    let node = &pair.b.node;
    eventually("what was denied is parked, and nothing waits", MAIL_DEADLINE, async || {
        let status = node.status().await;
        let waiting = status["inbox"]["waiting"].as_array()?;
        let rooms = status["inbox"]["backlog"].as_array()?;
        let waits = waiting.iter().any(|entry| entry["state"] != "parked") || !rooms.is_empty();
        let parked = node.parked().await;
        let is_denied = |entry: &Value| {
            let reason = entry["reason"].as_str().unwrap_or_default();
            reason.contains(BY_NODE) || reason.contains(BY_HOMESERVER)
        };
        (!waits && parked.iter().any(is_denied)).then_some(())
    })
    .await;
}

async fn assert_denied(pair: &Pair, room: &str) {
    let read = pair.b.client.texts_of(&pair.a.client, room).await;
    assert!(read.is_empty(), "a denied server's messages are visible: {read:?}");
}
