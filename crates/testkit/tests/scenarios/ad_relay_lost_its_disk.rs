//! ad: a relay took mail and lost its disk; another says that it took mail and keeps nothing. The mail arrives all the same.

use std::time::Duration;

use restante_testkit::{Meddler, Pair, eventually};
use serde_json::Value;

use crate::{MAIL_DEADLINE, numbered};

/// How long each step of the accounting waits here, by default ten minutes.
const SHORT_WAIT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_arrives_although_the_relay_that_took_it_lost_its_disk() {
    let mut pair = Pair::start_in(|world, _| world.wait_for_confirmations(SHORT_WAIT)).await;
    let texts = numbered("message", 3);
    pair.b.go_offline().await;
    pair.alice_sends(&texts).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(texts.len(), MAIL_DEADLINE).await;

    pair.relay.stop().await;
    pair.relay.lose_mail();
    pair.relay.start_again().await;
    // Nobody reaches B, so that only what is left again at the relay can come there.
    let direct_before = pair.b.direct_transactions();
    pair.b.come_online_unreachable().await;

    let read = pair.b.client.wait_for_texts(&pair.room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    nothing_is_open(&pair).await;
    assert!(total(&pair, "left_again").await > 0);
    assert_eq!(total(&pair, "sent_directly").await, 0);
    assert_eq!(pair.b.direct_transactions(), direct_before);
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_keeps_nothing_is_found_out_and_the_mail_arrives() {
    let (mut pair, meddler) = pair_with_a_liar().await;
    pair.b.go_offline().await;
    let mut texts = Vec::new();
    while !is_found_out(&pair).await {
        texts.push(format!("message {}", texts.len() + 1));
        pair.alice_sends(&texts[texts.len() - 1..]).await;
        // What is left after a loss was noticed and is lost again is another incident.
        let what = format!("the loss of message {} is noticed", texts.len());
        eventually(&what, MAIL_DEADLINE, async || {
            let is_noticed = open(&pair, "wanted").await >= texts.len() as u64;
            (is_noticed || is_found_out(&pair).await).then_some(())
        })
        .await;
    }
    assert!(texts.len() > 1, "one loss may be a lost disk");
    drop(meddler);

    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    nothing_is_open(&pair).await;
}

/// A pair whose relay says 200 to each deposit of B's mail and keeps nothing.
async fn pair_with_a_liar() -> (Pair, Meddler) {
    let mut world = restante_testkit::World::with_sites(&["a.test", "b.test"]);
    world.wait_for_confirmations(SHORT_WAIT);
    let relay = world.start_relay("relay").await;
    let meddler = Meddler::in_front_of(relay.address().url).await;
    meddler.keep_nothing();
    world.hold_mail_of("a.test", &relay);
    world.hold_mail_of_at("b.test", meddler.address_of(&relay));
    (Pair::start_sites(world, relay).await, meddler)
}

/// Whether A no longer counts the relay's word.
async fn is_found_out(pair: &Pair) -> bool {
    let outbox = pair.a.node.outbox().await;
    outbox["distrusted"][0]["relay"] == pair.relay.server_name().as_str()
}

/// A number of what A left for B and does not know to have arrived; 0 when there is nothing.
async fn open(pair: &Pair, what: &str) -> u64 {
    let outbox = pair.a.node.outbox().await;
    let destinations = outbox["destinations"].as_array().cloned().unwrap_or_default();
    let is_b = |one: &&Value| one["server_name"] == "b.test";
    destinations.iter().find(is_b).and_then(|of_b| of_b[what].as_u64()).unwrap_or(0)
}

/// One of the sums of A's outbox.
async fn total(pair: &Pair, what: &str) -> u64 {
    pair.a.node.outbox().await["totals"][what].as_u64().unwrap_or(0)
}

async fn nothing_is_open(pair: &Pair) {
    let what = "A knows that everything arrived";
    eventually(what, MAIL_DEADLINE, async || (open(pair, "unconfirmed").await == 0).then_some(()))
        .await;
}
