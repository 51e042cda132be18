//! t: B has joined a room, but has not fetched its state yet; mail is left meanwhile.

use restante_testkit::{Meddler, World, eventually};

use crate::{BULK_DEADLINE, MAIL_DEADLINE, numbered};

/// What a homeserver asks for after a join, in the background.
const STATE_IDS: &str = "/_matrix/federation/v1/state_ids/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_is_left_while_a_join_is_in_progress_is_not_lost() {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    let relay = world.start_relay("relay").await;
    world.hold_mail_of("a.test", &relay);
    world.hold_mail_of("b.test", &relay);
    let mut a = world.start_site("a.test", "alice").await;
    let meddler = Meddler::in_front_of(world.route_to("a.test")).await;
    world.lead_to("a.test", meddler.url());
    let mut b = world.start_site("b.test", "bob").await;

    meddler.hold(STATE_IDS);
    let room = a.client.create_room(&[b.client.user_id()]).await.expect("a room can be made");
    b.client.wait_for_invite(&room, MAIL_DEADLINE).await;
    b.client.join(&room).await.expect("an invited user can join");
    eventually("A sees the join", MAIL_DEADLINE, async || {
        let members = a.client.members(&room).await.expect("a member may ask for the members");
        (members.len() == 2).then_some(())
    })
    .await;
    meddler.wait_until_played(1, MAIL_DEADLINE).await;
    b.go_offline().await;

    let texts = numbered("message", 3);
    for text in &texts {
        a.client.send_text(&room, text).await.expect("a member may speak");
    }
    b.mailbox_at(&relay).wait_for_texts(texts.len(), MAIL_DEADLINE).await;
    a.go_offline().await;
    b.come_online().await;
    b.mailbox_at(&relay).wait_until_empty(MAIL_DEADLINE).await;

    // Synapse gives a join's state up when nobody answers, and asks anew when it starts.
    meddler.behave();
    a.come_online().await;
    eventually("B's node knows that A is back", BULK_DEADLINE, async || {
        b.client.display_name(a.client.user_id()).await.ok()
    })
    .await;
    b.go_offline().await;
    b.come_online().await;
    let read = b.client.wait_for_texts(&room, texts.len(), BULK_DEADLINE).await;
    assert_eq!(read, texts);
}
