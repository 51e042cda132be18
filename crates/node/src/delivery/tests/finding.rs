//! Relays that nobody named: a delivery looks for them, and goes easy on what strangers' records name.

use bytes::Bytes;
use restante_relay_api::{RecordedRelay, RelayRecord};

use super::super::finding::RELAYS_OF_RECORD_MAX;
use super::*;
use crate::test_site::BEGINNING;

/// What a record says of a relay: its name, and where it is.
type Named<'a> = (&'a str, Option<&'a str>);

/// The record of b.test that names these relays.
fn record(relays: &[&str], version: u64) -> Bytes {
    let relays: Vec<_> = relays.iter().map(|relay| (*relay, None)).collect();
    record_of("b.test", &relays, version)
}

/// The record of `server` that names these relays, the first of them to be tried first.
fn record_of(server: &str, relays: &[Named<'_>], version: u64) -> Bytes {
    let relays = relays.iter().enumerate().map(|(number, (relay, url))| RecordedRelay {
        server_name: name(relay),
        url: url.map(str::to_owned),
        priority: number.try_into().unwrap(),
    });
    let version = BEGINNING.after(Duration::from_secs(version));
    let record = RelayRecord { server_name: name(server), relays: relays.collect(), version };
    record.signed(&identity(server).key).into()
}

/// A node that believes b.test's key; b.test is offline.
async fn node() -> Node {
    let node = Node::with_relays(&[]).await;
    trust(&node, "b.test").await;
    node.b_answers(Reply::Refused);
    node
}

async fn trust(node: &Node, server: &str) {
    let server = identity(server);
    let valid_until = BEGINNING.after(Duration::from_secs(37 * 24 * 3600));
    let document =
        restante_federation_proto::mint(&server.server_name, &server.key, None, valid_until);
    node.site.keys.trust(&document).await.unwrap();
}

/// Servers that are offline, each with a record of these relays on its web site.
async fn node_that_finds(records: &[(&str, &[Named<'_>])]) -> Node {
    let node = Node::with_relays(&[]).await;
    for (server, relays) in records {
        trust(&node, server).await;
        node.site.exchange.answer(&name(server), Reply::Refused);
        node.site.exchange.has_web_file(&name(server), &record_of(server, relays, 1));
    }
    node
}

impl Node {
    async fn send_to(&mut self, server: &str, txn_id: &str) -> (u16, String, Duration) {
        self.b = name(server);
        self.send(txn_id).await
    }
}

fn deposits(node: &Node, relay: &str) -> usize {
    node.site.exchange.seen_by(&name(relay)).len()
}

#[tokio::test(start_paused = true)]
async fn mail_for_an_offline_server_finds_its_relay_by_itself() {
    let node = node().await;
    node.site.exchange.has_web_file(&node.b, &record(&["r.test"], 1));
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(node.state("1").await, names(&["r.test"]));
    assert_eq!(node.send_content("2", CONTENT).await.0, 200);
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
    let (status, body, elapsed) = node.send("1").await;
    assert_eq!(status, 502);
    assert!(body.contains("no relay is known for b.test"), "{body}");
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    node.send("1").await;
    let asked = (deposits(&node, "ours.test"), node.site.exchange.web_asked().len());
    assert_eq!(asked, (1, 1), "it was looked for a short while ago");
}

#[tokio::test(start_paused = true)]
async fn the_whole_call_stays_under_45_seconds_when_a_search_hangs_as_well() {
    let node = node().await;
    node.b_answers(Reply::HangsAtAnswer);
    node.site.relays.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
    node.relay_answers("ours.test", Reply::HangsAtAnswer);
    let (status, _, elapsed) = node.send("1").await;
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
        let (status, body, _) = node.send(txn_id).await;
        assert_eq!(status, 502, "{body}");
    }
    assert_eq!((deposits(&node, "victim.test"), deposits(&node, "gone.test")), (1, 1));
    tokio::time::advance(Duration::from_secs(30)).await;
    node.send("4").await;
    assert_eq!((deposits(&node, "victim.test"), deposits(&node, "gone.test")), (1, 2));
    tokio::time::advance(Duration::from_secs(600)).await;
    node.send("5").await;
    assert_eq!(deposits(&node, "victim.test"), 2);

    let named = Node::with_relays(&["r.test"]).await;
    named.b_answers(Reply::Refused);
    named.relay_answers("r.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    for txn_id in ["1", "2"] {
        assert_eq!(named.send(txn_id).await.0, 502);
    }
    assert_eq!(deposits(&named, "r.test"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_full_of_relays_that_hang_holds_up_nobody_elses_deposits() {
    let tarpits: Vec<String> = (1..16).map(|number| format!("tarpit{number}.test")).collect();
    let mut relays = vec![("r.test", None)];
    relays.extend(tarpits.iter().map(|tarpit| (tarpit.as_str(), None)));
    let others = [("elsewhere.test", None)];
    let mut node = node_that_finds(&[("b.test", &relays), ("d.test", &others)]).await;
    node.site.relays.add(name("c.test"), name("operators.test").into()).await.unwrap();
    for relay in ["r.test", "elsewhere.test", "operators.test"] {
        node.relay_answers(relay, Reply::Json(200, "{}"));
    }
    for tarpit in &tarpits {
        node.relay_answers(tarpit, Reply::HangsAtAnswer);
    }
    for txn_id in ["1", "2", "3"] {
        let (status, body, took) = node.send_to("b.test", txn_id).await;
        assert_eq!(status, 200, "{body}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    for server in ["c.test", "d.test"] {
        let (status, body, took) = node.send_to(server, "1").await;
        assert_eq!(status, 200, "{body}");
        assert!(took < Duration::from_secs(3), "{server}: {took:?}");
    }
    let asked = tarpits.iter().filter(|tarpit| deposits(&node, tarpit) > 0).count();
    assert_eq!(asked, RELAYS_OF_RECORD_MAX - 1, "the best of the record are asked, and no others");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_could_not_be_asked_is_not_taken_for_one_that_refused() {
    let mut node = node_that_finds(&[("b.test", &[("r.test", None), ("tarpit.test", None)])]).await;
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    let gate = Arc::new(Notify::new());
    node.relay_answers("tarpit.test", Reply::Gated(gate.clone(), "{}"));
    for txn_id in ["1", "2", "3"] {
        assert_eq!(node.send_to("b.test", txn_id).await.0, 200);
    }
    node.site.run(tokio::time::sleep(Duration::from_millis(5500))).await;
    assert_eq!(deposits(&node, "tarpit.test"), 2, "the third waited for one of them to end");
    assert_eq!(node.delivery.refusals(), []);
    gate.notify_waiters();
    node.site.run(tokio::time::sleep(Duration::from_secs(1))).await;
    node.relay_answers("tarpit.test", Reply::Json(200, "{}"));
    assert_eq!(node.send_to("b.test", "4").await.0, 200);
    assert_eq!(deposits(&node, "tarpit.test"), 3);
}

const RELAY_FULL: &str = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"The relay is full","org.restante.full":"relay","retry_after_ms":600000}"#;

#[tokio::test(start_paused = true)]
async fn who_borrows_a_relays_name_for_a_url_of_its_own_speaks_for_that_url_alone() {
    let full = [("popular.test", Some("https://full.test"))];
    let taking = [("popular.test", Some("https://taking.test"))];
    let popular = [("popular.test", None)];
    let records: [(&str, &[_]); 3] = [("b.test", &full), ("c.test", &taking), ("d.test", &popular)];
    let mut node = node_that_finds(&records).await;
    node.relay_answers("full.test", Reply::Json(429, RELAY_FULL));
    node.relay_answers("taking.test", Reply::Json(200, "{}"));
    node.relay_answers("popular.test", Reply::Json(200, "{}"));
    assert_eq!(node.send_to("b.test", "1").await.0, 502);
    assert_eq!(node.send_to("d.test", "1").await.0, 200);

    node.relay_answers("popular.test", Reply::Json(429, RELAY_FULL));
    assert_eq!(node.send_to("d.test", "2").await.0, 502);
    assert_eq!(node.send_to("c.test", "1").await.0, 200);
    assert_eq!(node.send_to("d.test", "3").await.0, 502);
    assert_eq!(deposits(&node, "popular.test"), 2, "what another took ends no rest");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_refuses_the_mail_of_one_server_is_still_asked_for_another() {
    let popular: &[_] = &[("popular.test", None)];
    let mut node = node_that_finds(&[("b.test", popular), ("d.test", popular)]).await;
    node.relay_answers("popular.test", Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    assert_eq!(node.send_to("b.test", "1").await.0, 502);
    node.relay_answers("popular.test", Reply::Json(200, "{}"));
    assert_eq!(node.send_to("d.test", "1").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_third_party_is_called_once_whatever_names_and_records_lead_there() {
    let victim = Some("https://victim.test");
    let (one, other) = ([("n1.test", victim), ("n2.test", victim)], [("n3.test", victim)]);
    let mut node = node_that_finds(&[("b.test", &one), ("d.test", &other)]).await;
    for reply in [Reply::Refused, Reply::Json(404, r#"{"errcode":"M_UNRECOGNIZED"}"#)] {
        let before = deposits(&node, "victim.test");
        node.relay_answers("victim.test", reply);
        for txn_id in ["1", "2"] {
            assert_eq!(node.send_to("b.test", txn_id).await.0, 502);
            assert_eq!(node.send_to("d.test", txn_id).await.0, 502);
        }
        assert_eq!(deposits(&node, "victim.test"), before + 1);
        tokio::time::advance(Duration::from_secs(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_by_a_strangers_word_that_is_busy_is_not_asked_again_at_once() {
    let mut node = node_that_finds(&[("b.test", &[("busy.test", None)])]).await;
    let busy = Reply::Json(429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":250}"#);
    node.relay_answers("busy.test", busy);
    for txn_id in ["1", "2"] {
        assert_eq!(node.send_to("b.test", txn_id).await.0, 502);
    }
    assert_eq!(deposits(&node, "busy.test"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deposit_tells_where_answers_can_be_left_and_that_is_no_part_of_what_was_signed() {
    let node = Node::with_relays(&["r.test"]).await;
    node.b_answers(Reply::Refused);
    node.relay_answers("r.test", Reply::Json(200, "{}"));
    node.send("1").await;
    let without = node.site.exchange.seen_by(&name("r.test")).remove(0);
    assert_eq!(DepositBody::parse(without.body).unwrap().extras.record, None, "it has no relay");

    node.site.relays.add(name(OWN_NAME), name("ours.test").into()).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let publishing = crate::own_record::publish::run(node.site.site.clone(), shutdown.clone());
    let sending = async {
        node.site.run(tokio::time::sleep(Duration::from_secs(1))).await;
        node.send("2").await;
        shutdown.cancel();
    };
    tokio::join!(publishing, sending);
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
