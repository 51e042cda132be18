//! s: ten falls into relays and back to direct, under steady traffic both ways.

use restante_testkit::{Pair, eventually};

use crate::MAIL_DEADLINE;

const FALLS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_over_ten_falls_into_relays_and_back() {
    let mut pair = Pair::start().await;
    let (mut from_alice, mut from_bob) = (Vec::new(), Vec::new());
    for _ in 0..FALLS {
        pair.b.link.cut().await;
        let before = pair.relay.deposits_asked();
        traffic_until("mail falls into the relay", &pair, &mut from_alice, &mut from_bob, || {
            pair.relay.deposits_asked() > before
        })
        .await;
        pair.b.link.restore().await;
        let before = pair.b.direct_transactions();
        traffic_until("mail goes direct again", &pair, &mut from_alice, &mut from_bob, || {
            pair.b.direct_transactions() > before
        })
        .await;
    }

    println!("{} texts of Alice's, {} of Bob's", from_alice.len(), from_bob.len());
    let total = from_alice.len() + from_bob.len();
    for reader in [&pair.a.client, &pair.b.client] {
        reader.wait_for_texts(&pair.room, total, MAIL_DEADLINE).await;
        assert_eq!(reader.texts_of(&pair.a.client, &pair.room).await, from_alice);
        assert_eq!(reader.texts_of(&pair.b.client, &pair.room).await, from_bob);
    }
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}

/// Both write, a text at a time, until `is_so`.
async fn traffic_until(
    what: &str,
    pair: &Pair,
    from_alice: &mut Vec<String>,
    from_bob: &mut Vec<String>,
    is_so: impl Fn() -> bool,
) {
    eventually(what, MAIL_DEADLINE, async || {
        for (client, said) in [(&pair.a.client, &mut *from_alice), (&pair.b.client, &mut *from_bob)]
        {
            let text = format!("text {}", said.len() + 1);
            client.send_text(&pair.room, &text).await.expect("a member may speak");
            said.push(text);
        }
        is_so().then_some(())
    })
    .await;
}
