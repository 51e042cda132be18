//! The ground that the scenarios stand on, without relay and node.

use std::time::Duration;

use restante_testkit::{Homeserver, HomeserverPlan};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synapse_starts_and_a_client_talks_to_itself() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let mut homeserver = Homeserver::start(HomeserverPlan {
        server_name: "a.test".parse().expect("it is a server name"),
        directory: folder.path().to_owned(),
        outbound: None,
    })
    .await;
    let (alice, bob) = tokio::join!(homeserver.client("alice"), homeserver.client("bob"));
    let room = alice.create_room(&[bob.user_id()]).await.expect("a room can be made");
    bob.wait_for_invite(&room, Duration::from_secs(30)).await;
    bob.join(&room).await.expect("an invited user can join");

    // More than one sync's timeline holds, so that the client has to fill a gap.
    let texts: Vec<_> = (1..=45).map(|number| format!("message {number}")).collect();
    for text in &texts {
        alice.send_text(&room, text).await.expect("a member may speak");
    }
    assert_eq!(bob.wait_for_texts(&room, 45, Duration::from_secs(30)).await, texts);

    homeserver.stop().await;
    homeserver.start_again().await;
    alice.send_to_device(&bob, "test.note", json!({ "n": 1 })).await.expect("Bob has a device");
    let notes = bob.wait_for_to_device("test.note", 1, Duration::from_secs(30)).await;
    assert_eq!(notes[0].content, json!({ "n": 1 }));

    let refused = alice.display_name("@nobody:a.test").await.expect_err("there is no such user");
    assert_eq!(refused.http_status, Some(404));
    assert_eq!(homeserver.rejected_events(), 0);
}
