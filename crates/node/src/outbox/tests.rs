mod trouble;
mod withdrawing;

use std::time::Duration;

use axum::body::to_bytes;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use restante_federation::{Identity, Peer};
use restante_federation_proto::{Clock as _, ServerName, SignableRequest, Timestamp};
use restante_relay_api::endpoints::LEFT;
use restante_relay_api::{
    ConfirmedDelivery, ConfirmedOutcome, DeliveryReceipt, DepositBody, MissingNumbers, Receipt, hex,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::DeliverySection;
use crate::delivery::{Mail, Outgoing};
use crate::inbox::mail::{Mail as Arriving, Standing, StreamPlace};
use crate::store::outbox::overview::{self, OutboxLine, Which};
use crate::store::seen::TransactionKey;
use crate::store::{inbox as rows, outbox as store, trust as trust_store};
use crate::test_site::{OWN_NAME, Reply, TestSite, identity, name};

const CONTENT: &str = r#"{"edus":[{"content":{},"edu_type":"m.direct_to_device"}],"origin":"a.test","origin_server_ts":1700000000000,"pdus":[]}"#;

const HELD: Reply = Reply::Json(200, r#"{"states":["held"]}"#);
const LOST: Reply = Reply::Json(200, r#"{"states":["unknown"]}"#);
const TAKEN: Reply = Reply::Json(200, "{}");

struct Node {
    site: TestSite,
    delivery: Delivery,
    settings: OutboxSettings,
    b: ServerName,
}

impl Node {
    /// Leaves mail for b.test with these relays.
    async fn with_relays(relays: &[&str]) -> Self {
        let site = TestSite::new().await;
        let b = name("b.test");
        for relay in relays {
            site.relays.add(b.clone(), Peer::from(name(relay))).await.unwrap();
        }
        let settings = OutboxSettings {
            bytes_max: 1 << 20,
            confirm_wait: Duration::from_secs(10),
            audit_after: Duration::from_secs(3),
            audit_interval: Duration::from_secs(5),
        };
        let mut parts = site.delivery_parts(&DeliverySection::default());
        parts.outbox = settings.into();
        let delivery = Delivery::open(parts).await.unwrap();
        Self { site, delivery, settings, b }
    }

    fn answers(&self, server: &str, replies: impl IntoIterator<Item = Reply>) {
        self.site.exchange.script(&name(server), replies);
    }

    async fn send(&self, txn_id: &str) -> (u16, String) {
        self.send_content(txn_id, CONTENT).await
    }

    async fn send_content(&self, txn_id: &str, content: &str) -> (u16, String) {
        let mail = Mail::read(outgoing(&self.b, txn_id, content), &identity(OWN_NAME)).unwrap();
        let response = self.site.run(self.delivery.send(mail)).await;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Lets the outbox work for so long.
    async fn work(&self, seconds: u64) {
        self.site.run(self.working(seconds)).await;
    }

    /// The same beside something else.
    async fn working(&self, seconds: u64) {
        let stop = CancellationToken::new();
        let outbox =
            Outbox::new(self.site.site.clone(), self.delivery.clone(), self.settings.into());
        let running = run(outbox, stop.clone());
        let passing = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stop.cancel();
        };
        tokio::join!(running, passing);
    }

    async fn lines(&self) -> Vec<OutboxLine> {
        let all = overview::lines(&self.site.database, self.b.clone(), Which::All, (0, 99)).await;
        all.unwrap()
    }

    async fn total(&self, name: &str) -> u64 {
        overview::totals(&self.site.database).await.unwrap().of(name)
    }

    /// What b.test tells.
    async fn b_tells(&self, receipt: DeliveryReceipt) {
        let now = self.site.clock.now();
        store::told(&self.site.database, self.b.clone(), vec![receipt], now).await.unwrap();
    }

    fn targets(&self, server: &str) -> Vec<String> {
        self.site.exchange.targets_of(&name(server))
    }

    /// How often `server` was given transactions directly.
    fn sends(&self, server: &str) -> usize {
        self.targets(server).iter().filter(|target| target.contains("/send/")).count()
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
    let (destination, txn_id) = (destination.clone(), txn_id.to_owned());
    let body = content.to_owned().into();
    Outgoing { destination, txn_id, target, headers, authorization, body }
}

fn sha256(content: &str) -> [u8; 32] {
    *restante_relay_api::Content::parse(content.to_owned().into()).unwrap().sha256()
}

fn confirmed(txn_id: &str, relay: Option<&str>) -> DeliveryReceipt {
    let delivery = ConfirmedDelivery {
        txn_id: txn_id.to_owned(),
        content_sha256: hex(&sha256(CONTENT)),
        outcome: ConfirmedOutcome::Delivered,
        relay: relay.map(name),
        at: Timestamp::from_millis(1),
        pdus: Default::default(),
    };
    DeliveryReceipt { deliveries: vec![delivery], missing: vec![] }
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_there_before_the_homeserver_hears_and_goes_with_its_recipients_word() {
    let node = Node::with_relays(&["r1.test", "r2.test"]).await;
    node.answers("r1.test", [TAKEN]);
    node.answers("r2.test", [TAKEN]);
    assert_eq!(node.send("1").await.0, 200);
    assert_eq!(node.total("copies").await, 1);
    let copy = store::load(&node.site.database, node.b.clone(), 1).await.unwrap().unwrap();
    assert_eq!(copy.copy.content().unwrap(), CONTENT);

    // Another's word says nothing of mail for b.test, nor does one of other content.
    let now = node.site.clock.now();
    let receipt = vec![confirmed("1", None)];
    store::told(&node.site.database, name("c.test"), receipt, now).await.unwrap();
    let mut other = confirmed("1", None);
    other.deliveries[0].content_sha256 = hex(&[0; 32]);
    node.b_tells(other).await;
    assert_eq!(node.total("copies").await, 1);

    node.b_tells(confirmed("1", Some("r1.test"))).await;
    node.b_tells(confirmed("1", None)).await;
    assert_eq!((node.total("copies").await, node.total("confirmed").await), (0, 1));
    assert_eq!(node.lines().await[0].brought_by.as_deref(), Some("r1.test"));
}

#[tokio::test(start_paused = true)]
async fn typing_alone_is_left_and_no_copy_is_kept() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    let typing = CONTENT.replace("m.direct_to_device", "m.typing");
    assert_eq!(node.send_content("1", &typing).await.0, 200);
    assert_eq!(node.total("copies").await, 0);
    assert_eq!(node.lines().await[0].holders.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_copies_make_room_and_the_homeserver_hears_sent_all_the_same() {
    let mut node = Node::with_relays(&["r1.test"]).await;
    let one = KeptCopy::of(("", ""), CONTENT.as_bytes(), None).unwrap().compressed.len() as u64;
    node.settings.bytes_max = 2 * one;
    let mut parts = node.site.delivery_parts(&DeliverySection::default());
    parts.outbox = node.settings.into();
    node.delivery = Delivery::open(parts).await.unwrap();
    node.answers("r1.test", [TAKEN]);
    for txn_id in ["1", "2", "3"] {
        assert_eq!(node.send(txn_id).await.0, 200);
    }
    let kept: Vec<_> = node.lines().await.iter().map(|line| line.copy.is_some()).collect();
    assert_eq!(kept, [false, true, true]);
    assert_eq!(node.total("copies_dropped").await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_is_sent_directly_in_its_order_once_its_destination_was_back_for_a_while()
 {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, TAKEN, TAKEN, HELD]);
    for txn_id in ["1", "2", "3"] {
        assert_eq!(node.send(txn_id).await.0, 200);
    }
    let before = node.sends("b.test");
    node.answers("b.test", [Reply::Json(200, r#"{"pdus":{"$x":{"error":"no"}}}"#)]);
    node.site.destinations.answered(&node.b).await;
    node.b_tells(confirmed("2", Some("r1.test"))).await;
    node.work(8).await;
    assert_eq!(node.sends("b.test"), before, "it has time to collect and confirm");
    node.work(6).await;
    let sent: Vec<_> = node.targets("b.test").split_off(before);
    let sent: Vec<_> = sent.iter().filter(|target| target.contains("/send/")).collect();
    assert!(sent[0].ends_with("/send/1") && sent[1].ends_with("/send/3"), "{sent:?}");
    assert_eq!((sent.len(), node.total("sent_directly").await), (2, 2));
    let lines = node.lines().await;
    assert!(lines[0].delivered_at.is_some() && lines[0].errors.as_ref().unwrap().contains("$x"));
    assert_eq!(node.total("copies").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_its_recipient_misses_is_sent_at_once() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, TAKEN, HELD]);
    node.send("1").await;
    node.send("2").await;
    node.answers("b.test", [TAKEN]);
    node.site.destinations.answered(&node.b).await;
    let of = |stream: &str| MissingNumbers { stream: stream.to_owned(), from: 2, through: 9 };
    let tells = |stream: &str| DeliveryReceipt { deliveries: vec![], missing: vec![of(stream)] };
    let before = node.sends("b.test");
    node.b_tells(tells("another stream")).await;
    node.work(3).await;
    assert_eq!(node.sends("b.test"), before);
    let stream = "SELECT stream FROM installation";
    let stream =
        node.site.database.read(|c| c.query_row(stream, [], |row| row.get::<_, String>(0)));
    let stream = stream.await.unwrap();
    node.b_tells(tells(&stream)).await;
    node.work(3).await;
    assert_eq!(node.sends("b.test"), before + 1);
    assert!(node.targets("b.test").last().unwrap().ends_with("/send/2"));
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_lost_is_left_again_with_all_of_its_destinations_relays() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, LOST, TAKEN, HELD]);
    node.send("1").await;
    node.site.relays.add(node.b.clone(), Peer::from(name("r2.test"))).await.unwrap();
    node.answers("r2.test", [TAKEN, HELD]);
    node.work(8).await;
    let line = node.lines().await.remove(0);
    let holders: Vec<_> = line.holders.iter().map(|holder| holder.relay.as_str()).collect();
    assert_eq!(holders, ["r1.test", "r2.test"]);
    assert_eq!(line.holders[0].said.as_deref(), Some("held"));
    assert_eq!((node.total("left_again").await, node.total("copies").await), (1, 1));
    assert_eq!(node.targets("r1.test")[1], LEFT);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_keeps_nothing_is_found_out_until_mail_arrives_through_it() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, LOST, TAKEN, LOST, TAKEN, LOST, TAKEN, LOST, TAKEN]);
    assert_eq!(node.send("1").await.0, 200);
    for _ in 0..10 {
        node.work(4).await;
    }
    let distrusted = trust_store::all(&node.site.database).await.unwrap();
    assert_eq!((distrusted.len(), distrusted[0].relay.as_str()), (1, "r1.test"));

    node.answers("r1.test", [TAKEN]);
    let (status, body) = node.send("2").await;
    assert_eq!(status, 502, "its word does not count");
    assert!(body.contains("lost mail again and again"), "{body}");
    node.b_tells(confirmed("2", Some("r1.test"))).await;
    assert_eq!(trust_store::all(&node.site.database).await.unwrap(), []);
    assert_eq!(node.send("3").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_the_question_is_left_alone_and_its_word_counts() {
    let node = Node::with_relays(&["r1.test"]).await;
    let unknown = Reply::Json(404, r#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#);
    node.answers("r1.test", [TAKEN, unknown]);
    node.send("1").await;
    node.work(30).await;
    assert_eq!(node.targets("r1.test").len(), 2);
    assert_eq!(node.lines().await[0].holders.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_kept_if_the_relays_key_verifies_it() {
    let key = identity("r.test").key;
    let relay: ServerName = hex(key.public_key().as_bytes()).parse().unwrap();
    let node = Node::with_relays(&[relay.as_str()]).await;
    let signed = |txn_id: &str| {
        let receipt = Receipt {
            relay: relay.clone(),
            origin: name(OWN_NAME),
            destination: node.b.clone(),
            txn_id: txn_id.to_owned(),
            content_sha256: hex(&sha256(CONTENT)),
            received_at: node.site.clock.now(),
            expires_at: node.site.clock.now().after(Duration::from_secs(60)),
        };
        let body = Receipt::to_answer(&receipt.signed(&key));
        Reply::Page(200, "application/json", body)
    };
    let forged = Reply::Page(
        200,
        "application/json",
        Bytes::from_static(br#"{"org.restante.receipt":{"relay":7}}"#),
    );
    node.answers(relay.as_str(), [signed("1"), signed("other"), forged]);
    for txn_id in ["1", "2", "3"] {
        assert_eq!(node.send(txn_id).await.0, 200, "a receipt is evidence and nothing else");
    }
    node.site.background.stop(Duration::from_secs(60)).await;
    let lines = node.lines().await;
    let kept: Vec<_> = lines.iter().map(|line| line.holders[0].receipt.is_some()).collect();
    assert_eq!(kept, [true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_what_waits_at_its_recipient_stays_and_is_not_sent_until_it_is_told_how_it_ended()
 {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, LOST]);
    assert_eq!(node.send("1").await.0, 200);
    let mut waiting = confirmed("1", Some("r1.test"));
    waiting.deliveries[0].outcome = ConfirmedOutcome::Waiting;
    node.b_tells(waiting).await;
    let sends = node.sends("b.test");
    node.answers("b.test", [TAKEN]);
    node.site.destinations.answered(&node.b).await;
    node.work(120).await;
    assert_eq!((node.total("copies").await, node.sends("b.test")), (1, sends));
    let line = node.lines().await.remove(0);
    assert!(line.waits_since.is_some() && line.confirmed_at.is_none());
    assert_eq!(line.copy.unwrap().wanted_at, None, "its recipient has it, whatever relays say");

    let mut parked = confirmed("1", Some("r1.test"));
    parked.deliveries[0].outcome = ConfirmedOutcome::Parked;
    node.b_tells(parked).await;
    let line = node.lines().await.remove(0);
    assert_eq!(line.confirmed_as.as_deref(), Some("parked"));
    assert_eq!(node.total("copies").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_its_recipient_misses_after_all_is_sent_though_it_waited_there() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, HELD]);
    assert_eq!(node.send("1").await.0, 200);
    let mut waiting = confirmed("1", None);
    waiting.deliveries[0].outcome = ConfirmedOutcome::Waiting;
    node.b_tells(waiting).await;
    let stream = node.site.database.read(|connection| {
        connection.query_row("SELECT stream FROM installation", [], |row| row.get::<_, String>(0))
    });
    let missing = vec![MissingNumbers { stream: stream.await.unwrap(), from: 1, through: 1 }];
    node.b_tells(DeliveryReceipt { deliveries: vec![], missing }).await;
    let sends = node.sends("b.test");
    node.answers("b.test", [TAKEN]);
    node.site.destinations.answered(&node.b).await;
    node.work(30).await;
    assert_eq!((node.total("copies").await, node.sends("b.test")), (0, sends + 1));
}

/// Mail of b.test that ended: by its stream its origin has a node.
async fn ended(node: &Node, txn_id: &str) {
    let key = TransactionKey { origin: node.b.clone(), txn_id: txn_id.to_owned(), sha256: [1; 32] };
    let place = StreamPlace { stream: "s".to_owned(), seq: 1, deposited_at: node.site.clock.now() };
    let mail = Arriving {
        key,
        content: Bytes::from_static(b"{}"),
        proof: Some(("/send/1".to_owned(), "X-Matrix".to_owned())),
        place: Some(place),
        extras: Bytes::new(),
        is_entire: true,
        source: "r9.test".to_owned(),
        request_id: None,
        standing: Standing::Parked("too old".to_owned()),
    };
    rows::arrive(&node.site.database, vec![mail], node.site.clock.now()).await.unwrap();
}

fn told(body: &Bytes) -> DeliveryReceipt {
    DeliveryReceipt::in_transaction(body).unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_answers_is_told_directly_in_one_receipt() {
    let node = Node::with_relays(&[]).await;
    node.answers("b.test", [TAKEN]);
    ended(&node, "1").await;
    ended(&node, "2").await;
    node.work(3).await;
    let seen = node.site.exchange.seen_by(&node.b);
    let sent: Vec<_> = seen.iter().filter(|seen| seen.target.contains("/send/restante-")).collect();
    assert_eq!(sent.len(), 1);
    let receipt = told(&sent[0].body);
    let txns: Vec<_> = receipt.deliveries.iter().map(|each| each.txn_id.as_str()).collect();
    assert_eq!(txns, ["1", "2"]);
    assert_eq!(receipt.deliveries[0].outcome, ConfirmedOutcome::Parked);
    assert_eq!(receipt.deliveries[0].relay, Some(name("r9.test")));
    assert!(!sent[0].headers.contains_key("x-restante-waybill"));
    node.work(3).await;
    assert_eq!(node.sends("b.test"), 1, "once");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_away_finds_its_receipt_at_its_relays_with_a_proof_and_nothing_is_kept_of_it()
 {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    ended(&node, "1").await;
    node.work(12).await;
    let deposits = node.site.exchange.seen_by(&name("r1.test"));
    assert_eq!(deposits.len(), 1);
    let body = DepositBody::parse(deposits[0].body.clone()).unwrap();
    assert_eq!(told(body.content.canonical()).deliveries[0].txn_id, "1");
    assert!(body.extras.waybill.is_none() && body.extras.keys.is_some());
    let own: Identity = identity(OWN_NAME);
    let claim = body.extras.proof.unwrap().claim().unwrap();
    claim.check_fit(&node.b, claim.txn_id(), &body.content).unwrap();
    claim.verify(&body.content, &own.key.public_key()).unwrap();
    assert_eq!(node.lines().await, []);
    assert_eq!((node.total("copies").await, node.total("receipts_sent").await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_can_not_be_told_is_told_when_it_is_back() {
    let node = Node::with_relays(&[]).await;
    ended(&node, "1").await;
    let back = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        node.answers("b.test", [TAKEN]);
        node.site.destinations.answered(&node.b).await;
    };
    let running = async { tokio::join!(node.working(8), back) };
    node.site.run(running).await;
    assert_eq!(node.sends("b.test"), 1);
}
