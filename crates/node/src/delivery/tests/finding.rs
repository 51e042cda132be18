//! Relays that nobody named: a delivery looks for them, and goes easy on what strangers' records name.

use bytes::Bytes;
use restante_relay_api::{RecordedRelay, RelayRecord};

use super::*;
use crate::test_site::BEGINNING;

/// The record of b.test that names these relays.
fn record(relays: &[&str], version: u64) -> Bytes {
    let relays = relays.iter().map(|relay| RecordedRelay {
        server_name: name(relay),
        url: None,
        priority: 0,
    });
    let version = BEGINNING.after(Duration::from_secs(version));
    let record = RelayRecord { server_name: name("b.test"), relays: relays.collect(), version };
    record.signed(&identity("b.test").key).into()
}

/// A node that believes b.test's key; b.test is offline.
async fn node() -> Node {
    let node = Node::with_relays(&[]).await;
    let b = identity("b.test");
    let valid_until = BEGINNING.after(Duration::from_secs(37 * 24 * 3600));
    let document = restante_federation_proto::mint(&b.server_name, &b.key, None, valid_until);
    node.site.keys.trust(&document).await.unwrap();
    node.b_answers(Reply::Refused);
    node
}

fn deposits(node: &Node, relay: &str) -> usize {
    node.site.exchange.seen_by(&name(relay)).len()
}

#[tokio::test(start_paused = true)]
async fn mail_for_an_offline_server_finds_its_relay_by_itself() {
    let node = node().await;
    node.site.exchange.has_web_file(&node.b, &record(&["r.test"], 1));
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    let (status, body, _) = node.site.run(node.send("1")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.state("1").await, names(&["r.test"]));
    assert_eq!(node.site.run(node.send_content("2", CONTENT)).await.0, 200);
    assert_eq!(node.site.exchange.web_asked().len(), 1, "it is known now");
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_server_that_moved_finds_its_other_relay_once_the_known_one_refuses() {
    let node = node().await;
    node.site.exchange.has_web_file(&node.b, &record(&["left.test"], 1));
    node.relay_answers("left.test", Reply::Json(200, "{}"));
    assert_eq!(node.site.run(node.send("1")).await.0, 200);

    node.site.exchange.has_web_file(&node.b, &record(&["r.test"], 2));
    node.relay_answers("left.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    node.site.clock.advance(Duration::from_secs(120));
    let (status, body, elapsed) = node.site.run(node.send_content("2", CONTENT)).await;
    assert_eq!(status, 200, "{body}");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!((deposits(&node, "left.test"), deposits(&node, "r.test")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_relays_of_a_server_that_has_none_by_the_operators_word() {
    let node = node().await;
    node.site.relays.configure([(node.b.clone(), Vec::new())].into()).await.unwrap();
    assert_eq!(node.site.run(node.send("1")).await.0, 502);
    assert_eq!(node.site.exchange.web_asked(), []);
}

#[tokio::test(start_paused = true)]
async fn sources_that_hang_do_not_hold_up_the_homeserver_for_long() {
    let node = node().await;
    node.site.relays.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
    node.relay_answers("ours.test", Reply::HangsAtAnswer);
    let (status, body, elapsed) = node.site.run(node.send("1")).await;
    assert_eq!(status, 502);
    assert!(body.contains("no relay is known for b.test"), "{body}");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    node.site.run(node.send("1")).await;
    let asked = (deposits(&node, "ours.test"), node.site.exchange.web_asked().len());
    assert_eq!(asked, (1, 1), "it was looked for a short while ago");
}

#[tokio::test(start_paused = true)]
async fn the_whole_call_stays_under_45_seconds_when_a_search_hangs_as_well() {
    let node = node().await;
    node.b_answers(Reply::HangsAtAnswer);
    node.site.relays.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
    node.relay_answers("ours.test", Reply::HangsAtAnswer);
    let (status, _, elapsed) = node.site.run(node.send("1")).await;
    assert_eq!(status, 502);
    assert!(elapsed < Duration::from_secs(45), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_a_record_names_and_that_refuses_is_left_alone_and_the_operators_is_not() {
    let node = node().await;
    node.site.exchange.has_web_file(&node.b, &record(&["victim.test", "gone.test"], 1));
    node.relay_answers("victim.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    node.relay_answers("gone.test", Reply::Refused);
    for txn_id in ["1", "2", "3"] {
        let (status, body, _) = node.site.run(node.send(txn_id)).await;
        assert_eq!(status, 502, "{body}");
    }
    assert_eq!((deposits(&node, "victim.test"), deposits(&node, "gone.test")), (1, 1));
    tokio::time::advance(Duration::from_secs(30)).await;
    node.site.run(node.send("4")).await;
    assert_eq!((deposits(&node, "victim.test"), deposits(&node, "gone.test")), (1, 2));
    tokio::time::advance(Duration::from_secs(600)).await;
    node.site.run(node.send("5")).await;
    assert_eq!(deposits(&node, "victim.test"), 2);

    let named = Node::with_relays(&["r.test"]).await;
    named.b_answers(Reply::Refused);
    named.relay_answers("r.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    for txn_id in ["1", "2"] {
        assert_eq!(named.site.run(named.send(txn_id)).await.0, 502);
    }
    assert_eq!(deposits(&named, "r.test"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deposit_tells_where_answers_can_be_left_and_that_is_no_part_of_what_was_signed() {
    let node = Node::with_relays(&["r.test"]).await;
    node.b_answers(Reply::Refused);
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    node.site.run(node.send("1")).await;
    let without = node.site.exchange.seen_by(&name("r.test")).remove(0);
    assert_eq!(DepositBody::parse(without.body).unwrap().extras.record, None, "it has no relay");

    node.site.relays.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let publishing = crate::own_record::publish::run(node.site.site.clone(), shutdown.clone());
    let sending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.send("2").await;
        shutdown.cancel();
    };
    node.site.run(async { tokio::join!(publishing, sending) }).await;
    let with = node.site.exchange.seen_by(&name("r.test")).remove(1);
    let body = DepositBody::parse(with.body).unwrap();
    assert_eq!(body.content.canonical(), CONTENT);
    let (own, record) = (identity(OWN_NAME), body.extras.record.unwrap());
    let key = own.key.public_key();
    let record = RelayRecord::verify(
        &record,
        &own.server_name,
        (own.key.id(), &key),
        BEGINNING.after(Duration::from_secs(60)),
    );
    assert_eq!(record.unwrap().relays[0].server_name, name("ours.test"));
}
