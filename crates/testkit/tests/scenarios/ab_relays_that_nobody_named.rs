//! ab: nobody configured anything but each node's own relay. A finds B's relay while B is offline, through B's web site; and
//! without one, because they once met.

use restante_testkit::{RelayProcess, Site, World, eventually, share_a_room};

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_are_found_through_the_web_site_and_for_answers_in_the_mail_itself() {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    world.find_relays();
    let web_site = world.start_web_site("b.test").await;
    let (of_a, of_b) = tokio::join!(world.start_relay("of a"), world.start_relay("of b"));
    let mut a = world.start_site("a.test", "alice").await;
    let mut b = world.start_site("b.test", "bob").await;
    // They meet while neither has a relay that it could tell of.
    let room = share_a_room(&a, &b).await;
    join(&a, &of_a).await;
    join(&b, &of_b).await;
    web_site.wait_for_record().await;

    let questions = numbered("question", 3);
    b.go_offline().await;
    say(&a, &room, &questions).await;
    b.mailbox_at(&of_b).wait_for_texts(questions.len(), MAIL_DEADLINE).await;
    assert_eq!(source(&a, "b.test", &of_b).await.as_deref(), Some("well-known"));

    a.go_offline().await;
    b.come_online().await;
    assert_eq!(b.client.wait_for_texts(&room, 3, MAIL_DEADLINE).await, questions);
    // A has no web site, and is away: its mail told B where to leave the answer.
    say(&b, &room, &["answer".to_owned()]).await;
    a.mailbox_at(&of_a).wait_for_texts(1, MAIL_DEADLINE).await;
    assert_eq!(source(&b, "a.test", &of_a).await.as_deref(), Some("mail"));
    b.go_offline().await;
    a.come_online().await;
    let read = a.client.wait_for_texts(&room, 4, MAIL_DEADLINE).await;
    assert_eq!(read[3], "answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_are_found_because_two_servers_once_met() {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    world.find_relays();
    let of_b = world.start_relay("of b").await;
    let mut a = world.start_site("a.test", "alice").await;
    let mut b = world.start_site("b.test", "bob").await;
    join(&b, &of_b).await;
    let room = share_a_room(&a, &b).await;
    let what = "A asked B for its relays while B was there";
    eventually(what, MAIL_DEADLINE, async || source(&a, "b.test", &of_b).await).await;

    let texts = numbered("message", 3);
    b.go_offline().await;
    // What was learned outlives a restart.
    a.go_offline().await;
    a.come_online().await;
    say(&a, &room, &texts).await;
    b.mailbox_at(&of_b).wait_for_texts(texts.len(), MAIL_DEADLINE).await;
    assert_eq!(source(&a, "b.test", &of_b).await.as_deref(), Some("server"));
    a.go_offline().await;
    b.come_online().await;
    assert_eq!(b.client.wait_for_texts(&room, 3, MAIL_DEADLINE).await, texts);
}

async fn join(site: &Site, relay: &RelayProcess) {
    let address = relay.address();
    let line = format!("restante:{}?url={}", address.server_name, address.url);
    site.node.join(&line).await.expect("the relay serves everybody");
}

async fn say(site: &Site, room: &str, texts: &[String]) {
    for text in texts {
        site.client.send_text(room, text).await.expect("a member may speak");
    }
}

/// From whom `site` knows that `relay` holds `server`'s mail.
async fn source(site: &Site, server: &str, relay: &RelayProcess) -> Option<String> {
    let known = site.node.relays_of(server).await;
    let known = known.iter().find(|known| known["server_name"] == relay.server_name().as_str())?;
    known["learned_from"].as_str().map(str::to_owned)
}
