mod capsules;
mod finding;
mod senders_relays;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use restante_federation::Peer;
use restante_federation_proto::{SignableRequest, XMatrix};
use restante_relay_api::endpoints::WAYBILL_HEADER;
use restante_relay_api::{DepositBody, Fullness, Waybill};
use tokio::sync::Notify;

use super::ledger::LedgerState;
use super::*;
use crate::config::DeliverySection;
use crate::test_site::{OWN_NAME, Reply, Seen, TestSite, identity, name};

const CONTENT: &str = r#"{"edus":[],"origin":"a.test","origin_server_ts":1700000000000,"pdus":[]}"#;

struct Node {
    site: TestSite,
    delivery: Delivery,
    b: ServerName,
}

impl Node {
    async fn with_relays(relays: &[&str]) -> Self {
        let site = TestSite::new().await;
        let b = name("b.test");
        for relay in relays {
            site.relays.add(b.clone(), Peer::from(name(relay))).await.unwrap();
        }
        Self::over(site).await
    }

    async fn over(site: TestSite) -> Self {
        let delivery = Delivery::open(site.delivery_parts(&DeliverySection::default())).await;
        Self { delivery: delivery.unwrap(), b: name("b.test"), site }
    }

    async fn restarted(self) -> Self {
        let Self { site, delivery, .. } = self;
        drop(delivery);
        Self::over(site.restarted().await).await
    }

    fn relay_answers(&self, relay: &str, reply: Reply) {
        self.site.exchange.answer(&name(relay), reply);
    }

    fn b_answers(&self, reply: Reply) {
        self.site.exchange.answer(&self.b, reply);
    }

    /// Sends a transaction; gives status, body and the virtual time that it took.
    async fn send(&self, txn_id: &str) -> (u16, String, Duration) {
        self.send_content(txn_id, CONTENT).await
    }

    async fn send_content(&self, txn_id: &str, content: &str) -> (u16, String, Duration) {
        let mail = Mail::read(outgoing(&self.b, txn_id, content), &identity(OWN_NAME)).unwrap();
        let begun = Instant::now();
        let response = self.site.run(self.delivery.send(mail)).await;
        let took = begun.elapsed();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap(), took)
    }

    /// Waits until all is noted of what was sent.
    async fn noted(&self) {
        self.site.run(self.delivery.shared.afterwards.noted(&self.b)).await;
    }

    async fn state(&self, txn_id: &str) -> LedgerState {
        self.noted().await;
        let mail = Mail::read(outgoing(&self.b, txn_id, CONTENT), &identity(OWN_NAME)).unwrap();
        self.delivery.shared.ledger.line(mail.transaction()).await.unwrap().state()
    }
}

fn outgoing(destination: &ServerName, txn_id: &str, content: &str) -> Outgoing {
    let target = format!("/_matrix/federation/v1/send/{txn_id}").parse().unwrap();
    let own = identity(OWN_NAME);
    let signable = SignableRequest {
        method: "PUT",
        target: &target,
        origin: &own.server_name,
        destination: Some(destination),
        content: Some(content.as_bytes()),
    };
    let authorization = signable.sign(&own.key).to_string();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    headers.insert("user-agent", "Synapse".parse().unwrap());
    Outgoing {
        destination: destination.clone(),
        txn_id: txn_id.to_owned(),
        target,
        headers,
        authorization,
        body: content.to_owned().into(),
    }
}

fn waybill_of_deposit(deposit: &Seen) -> Waybill {
    let body = DepositBody::parse(deposit.body.clone()).unwrap();
    Waybill::parse(&body.extras.waybill.unwrap()).unwrap()
}

fn waybill_of_direct(request: &Seen) -> Waybill {
    let header = request.headers[WAYBILL_HEADER].to_str().unwrap();
    Waybill::parse(&Waybill::from_header(header).unwrap()).unwrap()
}

fn names(relays: &[&str]) -> LedgerState {
    LedgerState::Relayed(relays.iter().map(|relay| name(relay)).collect())
}

#[tokio::test(start_paused = true)]
async fn a_transaction_to_a_destination_that_answers_goes_direct_with_its_waybill() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.b_answers(Reply::Json(200, r#"{"pdus":{"$e":{}}}"#));
    let (status, body, _) = node.send("1").await;
    assert_eq!((status, body.as_str()), (200, r#"{"pdus":{"$e":{}}}"#));
    assert_eq!(node.state("1").await, LedgerState::Delivered);

    let seen = node.site.exchange.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, "/_matrix/federation/v1/send/1");
    assert_eq!(seen[0].body, CONTENT);
    assert_eq!(seen[0].headers["user-agent"], "Synapse");
    let waybill = waybill_of_direct(&seen[0]);
    assert_eq!((waybill.seq, waybill.stream.len()), (1, 32));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_to_an_offline_destination_is_left_with_every_relay_and_answered_200() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.relay_answers("r2.test", Reply::Json(200, "null"));
    let (status, body, took) = node.send("1").await;
    assert_eq!((status, body.as_str()), (200, r#"{"pdus":{}}"#));
    assert!(took >= Duration::from_secs(1), "the answer is held for a second: {took:?}");
    assert!(node.site.destinations.state(&node.b).unwrap().assumed_offline_since.is_some());
    assert_eq!(node.site.exchange.seen_by(&node.b).len(), 2);

    node.site.background.stop(Duration::from_secs(60)).await;
    assert_eq!(node.state("1").await, names(&["r1.test", "r2.test"]));
    for relay in ["r1.test", "r2.test"] {
        let deposits = node.site.exchange.seen_by(&name(relay));
        assert_eq!(deposits.len(), 1);
        assert_eq!(deposits[0].target, "/_matrix/federation/v1/send_relay/1/@restante:b.test");
        assert_eq!(waybill_of_deposit(&deposits[0]).seq, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deposit_is_signed_for_its_relay_and_carries_a_proof_that_verifies() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.send("1").await;
    let deposit = &node.site.exchange.seen_by(&name("r1.test"))[0];
    let own = identity(OWN_NAME);
    let key = own.key.public_key();

    let header: XMatrix = deposit.headers[AUTHORIZATION].to_str().unwrap().parse().unwrap();
    let canonical = restante_federation_proto::canonicalise(&deposit.body).unwrap();
    let signed = SignableRequest {
        method: "PUT",
        target: &deposit.target.parse().unwrap(),
        origin: &own.server_name,
        destination: Some(&name("r1.test")),
        content: Some(&canonical),
    };
    signed.verify(&key, &header.signature).unwrap();

    let body = DepositBody::parse(deposit.body.clone()).unwrap();
    assert_eq!(body.content.canonical(), CONTENT);
    let claim = body.extras.proof.unwrap().claim().unwrap();
    claim.check_fit(&node.b, "1", &body.content).unwrap();
    claim.verify(&body.content, &key).unwrap();
    let waybill = body.extras.waybill.unwrap();
    let sha256 = body.content.sha256();
    Waybill::verify(&waybill, &own.server_name, &node.b, sha256, (own.key.id(), &key)).unwrap();
    let keys = restante_federation_proto::KeyDocument::parse(body.extras.keys.unwrap()).unwrap();
    assert_eq!(keys.server_name(), &own.server_name);
}

#[tokio::test(start_paused = true)]
async fn no_relay_took_it_means_502_and_the_homeservers_retry_keeps_its_number() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.relay_answers(
        "r1.test",
        Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","error":"not served here"}"#),
    );
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 502);
    assert!(body.contains("M_UNKNOWN") && body.contains("not served here"), "{body}");
    assert!(body.contains("r2.test: cannot connect"), "{body}");
    assert_eq!(node.state("1").await, LedgerState::Pending);
    assert_eq!(node.delivery.refusals().len(), 2);

    node.relay_answers("r2.test", Reply::Json(200, "{}"));
    assert_eq!(node.send("2").await.0, 200);
    assert_eq!(node.send("1").await.0, 200);
    let numbers: Vec<u64> = node
        .site
        .exchange
        .seen_by(&name("r2.test"))
        .iter()
        .map(|deposit| waybill_of_deposit(deposit).seq)
        .collect();
    assert_eq!(numbers, [1, 2, 1]);
    assert_eq!(node.delivery.refusals().len(), 1);
}

const FULL: &str = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"The mailbox is full","org.restante.full":"mailbox","retry_after_ms":60000}"#;

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_left_alone_for_as_long_as_the_relay_asks_and_others_go_on() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.relay_answers("r1.test", Reply::Json(429, FULL));
    node.relay_answers("r2.test", Reply::Json(200, "{}"));
    let asked = || node.site.exchange.seen_by(&name("r1.test")).len();
    for txn_id in ["1", "2", "3"] {
        assert_eq!(node.send(txn_id).await.0, 200);
    }
    assert_eq!(asked(), 1);
    let refusal = node.delivery.refusals().remove(0);
    assert_eq!((refusal.full, refusal.destination), (Some(Fullness::Mailbox), name("b.test")));
    assert!(refusal.rests_until.unwrap() > node.site.site.clock.now());

    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.site.run(tokio::time::sleep(Duration::from_secs(60))).await;
    assert_eq!(node.send("4").await.0, 200);
    node.site.background.stop(Duration::from_secs(60)).await;
    assert_eq!(asked(), 2);
    assert_eq!(node.delivery.refusals(), []);
}

#[tokio::test(start_paused = true)]
async fn when_all_relays_are_full_the_homeserver_keeps_its_mail_and_hears_why() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(429, FULL));
    for txn_id in ["1", "1"] {
        let (status, body, _) = node.send(txn_id).await;
        assert_eq!((status, body.contains("The mailbox is full")), (502, true), "{body}");
    }
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_took_stays_the_homeservers_while_no_copy_of_it_can_be_kept_here() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.site
        .run_sql("CREATE TRIGGER full BEFORE INSERT ON kept_copies BEGIN SELECT RAISE(ABORT, 'full'); END")
        .await;
    let (status, body, _) = node.send("1").await;
    assert_eq!((status, body.contains("can't be noted here")), (502, true), "{body}");
    node.site.run_sql("DROP TRIGGER full").await;
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_answered_with_200_is_not_the_word_of_a_homeserver() {
    let node = Node::with_relays(&["r1.test"]).await;
    let parked = Bytes::from_static(b" <!doctype html><title>For sale</title>");
    node.relay_answers("r1.test", Reply::Page(200, "text/html", parked.clone()));
    for page in
        [parked, Bytes::from_static(b"\xef\xbb\xbf<html>"), Bytes::from_static(b"ok"), Bytes::new()]
    {
        node.b_answers(Reply::Page(200, "text/html", page));
        node.site.destinations.answered(&node.b).await;
        assert_eq!(node.send("1").await.0, 502);
    }
    node.b_answers(Reply::Json(200, "null"));
    node.site.destinations.answered(&node.b).await;
    assert_eq!(node.send("1").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_only_busy_is_asked_again_within_the_call() {
    let node = Node::with_relays(&["r1.test"]).await;
    let busy = Reply::Json(429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2000}"#);
    node.site.exchange.script(&name("r1.test"), [busy, Reply::Json(200, "{}")]);
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_id_names_a_delivery_directly_and_at_each_relay() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.relay_answers("r2.test", Reply::Json(200, "{}"));
    node.send("1").await;
    node.site.background.stop(Duration::from_secs(60)).await;
    let seen = node.site.exchange.seen();
    let header = |seen: &Seen| seen.headers["x-request-id"].to_str().unwrap().to_owned();
    let ids: BTreeSet<String> = seen.iter().map(header).collect();
    assert_eq!((seen.len(), ids.len()), (4, 1), "two attempts and two deposits");
    for relay in ["r1.test", "r2.test"] {
        let deposit = node.site.exchange.seen_by(&name(relay)).remove(0);
        let body = DepositBody::parse(deposit.body.clone()).unwrap();
        assert_eq!(body.extras.request_id().unwrap().as_str(), header(&deposit));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_relay_does_not_delay_what_another_took() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.relay_answers("r1.test", Reply::HangsAtAnswer);
    node.relay_answers("r2.test", Reply::Json(200, "{}"));
    let (status, _, took) = node.send("1").await;
    assert_eq!(status, 200);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_relay_goes_on_after_the_answer_and_is_entered_in_the_ledger() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    let gate = Arc::new(Notify::new());
    node.relay_answers("r1.test", Reply::Gated(gate.clone(), "{}"));
    node.relay_answers("r2.test", Reply::Json(200, "{}"));
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(node.state("1").await, names(&["r2.test"]));
    gate.notify_one();
    node.site.run(node.site.background.stop(Duration::from_secs(60))).await;
    assert_eq!(node.state("1").await, names(&["r1.test", "r2.test"]));
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_holds_is_answered_200_again_without_asking_it_again() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    assert_eq!(node.send("1").await.0, 200);
    node.relay_answers("r1.test", Reply::Refused);
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_whole_call_stays_under_45_seconds_when_everything_hangs() {
    for hang in [Reply::HangsAtConnect, Reply::HangsAtAnswer] {
        let node = Node::with_relays(&["r1.test", "r2.test"]).await;
        node.b_answers(hang.clone());
        node.relay_answers("r1.test", hang.clone());
        node.relay_answers("r2.test", hang);
        let (status, _, took) = node.send("1").await;
        assert_eq!(status, 502);
        assert!(took < schedule::CALL_BUDGET, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn assumed_offline_goes_straight_to_the_relays_with_a_probe_every_30_s_also_after_a_restart()
{
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.send("1").await;
    let node = node.restarted().await;
    let tried = |node: &Node| node.site.exchange.seen_by(&node.b).len();
    assert_eq!(tried(&node), 2);

    node.send("2").await;
    assert_eq!(tried(&node), 2);
    node.site.clock.advance(Duration::from_secs(30));
    node.send("3").await;
    node.send("4").await;
    assert_eq!(tried(&node), 3);

    node.b_answers(Reply::Json(200, r#"{"pdus":{}}"#));
    node.site.clock.advance(Duration::from_secs(30));
    node.send("5").await;
    assert_eq!(node.site.destinations.state(&node.b), None);
    node.send("6").await;
    assert_eq!(tried(&node), 5);
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn failures_count_over_calls() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    let unavailable = Reply::Json(502, "{}");
    node.site.exchange.script(&node.b, [unavailable, Reply::Json(200, "{}"), Reply::Refused]);
    assert_eq!(node.send("1").await.0, 200);
    assert!(node.site.exchange.seen_by(&name("r1.test")).is_empty());
    node.site.destinations.failed(&node.b).await;
    assert_eq!(node.send("2").await.0, 200);
    assert_eq!(node.site.exchange.seen_by(&node.b).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_relays_the_homeserver_keeps_the_transaction_and_is_told_why() {
    let node = Node::with_relays(&[]).await;
    let (status, body, _) = node.send("1").await;
    assert_eq!(status, 502);
    assert!(body.contains("restante relays add b.test RELAY"), "{body}");
    node.site.exchange.answer(&node.b, Reply::Json(200, "{}"));
    assert_eq!(node.send("1").await.0, 502);
    node.site.clock.advance(Duration::from_secs(30));
    assert_eq!(node.send("1").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_refuses_is_online_and_its_word_goes_to_the_homeserver() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.b_answers(Reply::Json(403, r#"{"errcode":"M_FORBIDDEN","error":"go away"}"#));
    let (status, body, _) = node.send("1").await;
    assert_eq!((status, body.contains("go away")), (403, true));
    assert_eq!(node.site.destinations.state(&node.b), None);
    assert!(node.site.exchange.seen_by(&name("r1.test")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_busy_destination_is_asked_again_when_it_says_and_is_not_offline() {
    let node = Node::with_relays(&["r1.test"]).await;
    let busy = Reply::Json(429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":4000}"#);
    node.site.exchange.script(&node.b, [busy.clone(), Reply::Json(200, "{}")]);
    let (status, _, took) = node.send("1").await;
    assert_eq!(status, 200);
    assert!(took >= Duration::from_secs(4), "{took:?}");

    node.b_answers(busy);
    let (status, body, took) = node.send("2").await;
    assert_eq!((status, body.contains("retry_after_ms")), (429, true));
    assert!(took < schedule::CALL_BUDGET, "{took:?}");
    assert_eq!(node.site.destinations.state(&node.b), None);
    assert!(node.site.exchange.seen_by(&name("r1.test")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_go_servers_null_reaches_the_homeserver_as_an_object() {
    let node = Node::with_relays(&[]).await;
    node.b_answers(Reply::Json(200, "null"));
    assert_eq!(node.send("1").await.1, r#"{"pdus":{}}"#);
}

#[tokio::test(start_paused = true)]
async fn content_with_members_of_ours_goes_only_direct() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    let content = r#"{"edus":[],"org.restante.proof":{},"origin":"a.test","pdus":[]}"#;
    let (status, body, _) = node.send_content("1", content).await;
    assert_eq!((status, body.contains("org.restante")), (502, true));
    assert!(node.site.exchange.seen_by(&name("r1.test")).is_empty());

    node.b_answers(Reply::Json(200, "{}"));
    node.site.clock.advance(Duration::from_secs(30));
    assert_eq!(node.send_content("1", content).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn two_transactions_at_once_arrive_in_the_order_of_their_numbers() {
    let node = Node::with_relays(&[]).await;
    let gate = Arc::new(Notify::new());
    let first_waits = Reply::Gated(gate.clone(), "{}");
    node.site.exchange.script(&node.b, [first_waits, Reply::Json(200, "{}")]);
    let release = async {
        node.site.exchange.wait_for(1).await;
        gate.notify_one();
    };
    let own = identity(OWN_NAME);
    let mail = |txn_id| Mail::read(outgoing(&node.b, txn_id, CONTENT), &own).unwrap();
    let (first, second, ()) = node
        .site
        .run(async {
            tokio::join!(node.delivery.send(mail("1")), node.delivery.send(mail("2")), release)
        })
        .await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let seen = node.site.exchange.seen_by(&node.b);
    let numbers: Vec<u64> = seen.iter().map(|request| waybill_of_direct(request).seq).collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_needs_no_relay_when_the_homeserver_missed_the_answer() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.b_answers(Reply::Json(200, "{}"));
    assert_eq!(node.send("1").await.0, 200);
    node.b_answers(Reply::Refused);
    assert_eq!(node.send("1").await.0, 200);
    assert!(node.site.exchange.seen_by(&name("r1.test")).is_empty());
}

async fn pages_max(node: &Node, pages: impl FnOnce(u32) -> u32 + Send + 'static) {
    let set = node.site.database.write(|connection| {
        let now: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        connection.pragma_update_and_check(None, "max_page_count", pages(now), |_| Ok(()))
    });
    set.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_nothing_is_sent_and_the_homeserver_keeps_it() {
    let node = Node::with_relays(&["relay.test"]).await;
    node.b_answers(Reply::Json(200, r#"{"pdus":{}}"#));
    pages_max(&node, |now| now).await;

    let mut numbers = 0..2_000;
    let refused = loop {
        let txn_id = format!("t{}", numbers.next().expect("the disk fills up"));
        let (status, body, _) = node.send(&txn_id).await;
        if status != 200 {
            assert_eq!(status, 502, "{body}");
            break txn_id;
        }
    };
    let target = format!("/_matrix/federation/v1/send/{refused}");
    assert!(!node.site.exchange.targets_of(&node.b).contains(&target), "it left all the same");
    assert!(node.site.exchange.targets_of(&name("relay.test")).is_empty());

    pages_max(&node, |now| now + 1_000).await;
    assert_eq!(node.send(&refused).await.0, 200);
}
