//! Our own outgoing relays: when they are asked, and for what.

use super::capsules::{NOTHING, VERSION, event, gives, transaction};
use super::*;
use crate::config::Preference;
use crate::relay_book::Outgoing;

/// A node with an outgoing relay `o.test`, and `both.test`, which is outgoing and b.test's as well if `relays` say so. b.test is
/// offline.
async fn node_that(prefer: Preference, relays: &[&str]) -> Node {
    let site = TestSite::new().await;
    let b = name("b.test");
    for relay in relays {
        site.relays.add(b.clone(), Peer::from(name(relay))).await.unwrap();
    }
    node_of(site, DeliverySection { prefer, ..DeliverySection::default() }).await
}

async fn node_of(site: TestSite, section: DeliverySection) -> Node {
    let b = name("b.test");
    for own in ["o.test", "both.test", "keeps.test"] {
        site.relays.add(name(OWN_NAME), Peer::from(name(own))).await.unwrap();
    }
    site.relays.note_outgoing(&name("o.test"), Outgoing::Yes);
    site.relays.note_outgoing(&name("both.test"), Outgoing::Yes);
    let delivery = Delivery::open(site.delivery_parts(&section)).await.unwrap();
    let node = Node { site, delivery, b };
    node.b_answers(Reply::Refused);
    for relay in ["o.test", "both.test", "keeps.test", "r.test"] {
        node.relay_answers(relay, Reply::Json(200, "{}"));
    }
    node
}

/// What each relay was asked: to keep it, or to deliver it.
async fn asked(node: &Node) -> Vec<(&'static str, bool)> {
    node.site.background.stop(Duration::from_secs(60)).await;
    let mut asked = Vec::new();
    for relay in ["both.test", "keeps.test", "o.test", "r.test"] {
        for seen in node.site.exchange.seen_by(&name(relay)) {
            // They are asked for relay records as well.
            if !seen.target.starts_with("/_matrix/federation/v1/send_relay/") {
                continue;
            }
            let onward = DepositBody::parse(seen.body).unwrap().extras.onward;
            asked.push((relay, onward == Some(true)));
        }
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_server_without_a_relay_is_left_with_our_outgoing_relays_to_be_delivered() {
    let node = node_that(Preference::Recipient, &[]).await;
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(asked(&node).await, [("both.test", true), ("o.test", true)]);
    assert_eq!(node.state("1").await, names(&["both.test", "o.test"]));
}

#[tokio::test(start_paused = true)]
async fn the_recipients_relays_come_first_and_ours_when_none_of_those_takes_it() {
    let node = node_that(Preference::Recipient, &["r.test", "both.test"]).await;
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(asked(&node).await, [("both.test", false), ("r.test", false)]);

    let node = node_that(Preference::Recipient, &["r.test"]).await;
    node.relay_answers("r.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    assert_eq!(node.send("1").await.0, 200);
    let all = [("both.test", true), ("o.test", true), ("r.test", false)];
    assert_eq!(asked(&node).await, all);
}

#[tokio::test(start_paused = true)]
async fn who_prefers_its_own_relays_asks_no_others_while_they_take_it() {
    let node = node_that(Preference::Sender, &["r.test", "both.test"]).await;
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(asked(&node).await, [("both.test", false), ("o.test", true)]);

    let node = node_that(Preference::Sender, &["r.test"]).await;
    for own in ["o.test", "both.test"] {
        node.relay_answers(own, Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    }
    assert_eq!(node.send("1").await.0, 200);
    let all = [("both.test", true), ("o.test", true), ("r.test", false)];
    assert_eq!(asked(&node).await, all);
}

#[tokio::test(start_paused = true)]
async fn with_both_all_relays_are_asked_at_once_and_one_that_is_both_keeps_it() {
    let node = node_that(Preference::Both, &["r.test", "both.test"]).await;
    assert_eq!(node.send("1").await.0, 200);
    let all = [("both.test", false), ("o.test", true), ("r.test", false)];
    assert_eq!(asked(&node).await, all);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_being_left_is_outgoing_no_more() {
    let node = node_that(Preference::Recipient, &[]).await;
    node.site.relays.note_outgoing(&name("both.test"), Outgoing::No);
    let departure = crate::relay_book::Departure {
        mail: restante_relay_api::LeftMail::Keep,
        state: crate::relay_book::DepartureState::Told,
        since: crate::test_site::BEGINNING,
    };
    node.site.relays.depart(name("o.test"), departure).await.unwrap();
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("no relay is known"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn what_follows_events_that_the_destination_may_not_have_is_not_left_to_be_delivered() {
    let node = node_that(Preference::Recipient, &[]).await;
    node.b_answers(Reply::Json(200, "{}"));
    node.homeserver_answers([VERSION, NOTHING]);
    assert_eq!(node.send_content("1", &transaction(&[event("a1", 1, &[])])).await.0, 200);
    node.noted().await;
    node.b_answers(Reply::Refused);
    node.homeserver_answers([gives(&[event("c2", 2, &["a1"])]), NOTHING]);

    let (status, body, _) = node.send_content("2", &transaction(&[event("a3", 3, &["c2"])])).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("follows events that b.test may not have"), "{body}");
    node.homeserver_answers([gives(&[]), gives(&[]), NOTHING]);
    let (status, _, _) = node.send_content("3", &transaction(&[event("a4", 4, &["a0"])])).await;
    assert_eq!(status, 502, "our own homeserver does not have all of it either");
    let (status, body, _) = node.send_content("4", &transaction(&[event("a2", 2, &["a1"])])).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(asked(&node).await, [("both.test", true), ("o.test", true)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_never_to_be_left_with_our_relays_stays_at_home() {
    let node = node_that(Preference::Never, &[]).await;
    assert_eq!(node.send("1").await.0, 502);
    assert_eq!(asked(&node).await, []);

    let node = node_that(Preference::Never, &["r.test", "both.test"]).await;
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(asked(&node).await, [("both.test", false), ("r.test", false)]);
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_that_a_server_has_no_relay_keeps_its_mail_from_ours_too() {
    let node = node_where_b_has_none(DeliverySection::default()).await;
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 502, "{body}");
    assert_eq!(asked(&node).await, []);

    // A word for just this destination goes before it.
    let prefer_for = [(name("b.test"), Preference::Recipient)].into();
    let section = DeliverySection { prefer_for, ..DeliverySection::default() };
    let node = node_where_b_has_none(section).await;
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(asked(&node).await, [("both.test", true), ("o.test", true)]);
}

async fn node_where_b_has_none(section: DeliverySection) -> Node {
    let site = TestSite::new().await;
    site.relays.configure([(name("b.test"), Vec::new())].into()).await.unwrap();
    node_of(site, section).await
}

#[tokio::test(start_paused = true)]
async fn our_relays_are_the_last_resort_also_for_a_destination_that_takes_all_the_time_there_is() {
    let node = node_that(Preference::Recipient, &[]).await;
    node.b_answers(Reply::HangsAtAnswer);
    let (status, body, took) = node.send("1").await;
    assert_eq!(status, 200, "{body}");
    assert!(took < crate::delivery::schedule::CALL_BUDGET, "{took:?}");
    assert_eq!(asked(&node).await, [("both.test", true), ("o.test", true)]);
}
