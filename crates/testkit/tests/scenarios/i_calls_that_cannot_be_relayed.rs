//! i: calls that can't be relayed, to B while B is offline.

use std::time::{Duration, Instant};

use restante_testkit::{ClientError, Pair};

use crate::{MAIL_DEADLINE, numbered};

/// A homeserver that backs off does so for 600 s; one that does not sends within a second or two.
const AT_ONCE: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_cannot_be_relayed_fail_clearly_and_the_next_message_goes_to_the_relay() {
    let mut pair = Pair::start().await;
    pair.b.client.create_public_room("lobby").await.expect("a room can be made");
    pair.b.go_offline().await;

    let alice = &pair.a.client;
    let profile = alice.display_name("@nobody:b.test").await.expect_err("B is offline");
    assert_explains(&profile, Some(403));
    let joined = alice.join("#lobby:b.test").await.expect_err("B is offline");
    assert_eq!(joined.http_status, Some(502), "{joined}");
    let invited = alice.create_room(&[]).await.expect("a room can be made");
    let invite = alice.invite(&invited, "@nobody:b.test").await.expect_err("B is offline");
    assert_explains(&invite, Some(403));

    let start = Instant::now();
    pair.alice_sends(&numbered("message", 1)).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(1, AT_ONCE).await;
    println!("the next message was at the relay after {:.1} s", start.elapsed().as_secs_f64());

    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, numbered("message", 1));
}

/// The text names the server that is offline, and says that it is.
fn assert_explains(error: &ClientError, http_status: Option<u16>) {
    assert_eq!(error.http_status, http_status, "{error}");
    assert!(error.message.contains("b.test") && error.message.contains("offline"), "{error}");
}
