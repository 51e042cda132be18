//! What a relay answers for: receipts, what became of mail, and mail that its owner has from elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use restante_federation_proto::{Clock, KeyDocument};
use restante_relay_api::endpoints::LEFT;
use restante_relay_api::limits::{HAVE_MAX, LEFT_MAX};
use restante_relay_api::{
    Content, HeldElsewhere, LeftAnswer, LeftRequest, LeftState, LeftTransaction, Receipt,
    ReceiptError, Receipted, hex,
};

use crate::harness::{Answer, TestRelay, TestServer, acknowledge_all, collect_all, texts};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn sha256(body: &str) -> [u8; 32] {
    *Content::parse(Bytes::from(body.to_owned())).unwrap().sha256()
}

/// The receipt in `answer`, checked with the key that the relay publishes.
async fn receipt(
    relay: &TestRelay,
    answer: &Answer,
    of: &Receipted<'_>,
) -> Result<Receipt, ReceiptError> {
    answer.assert_ok();
    let signed = Receipt::in_answer(&answer.body).expect("the answer holds a receipt");
    let key_id = Receipt::key_ids(&signed, relay.name()).remove(0);
    let document = relay.plain(Method::GET, "/_matrix/key/v2/server", "").await.body;
    let document = KeyDocument::parse(document).unwrap();
    let key = &document.verify_keys()[&key_id];
    Receipt::verify(&signed, relay.name(), of, (&key_id, key))
}

#[tokio::test]
async fn a_deposit_is_answered_with_a_receipt_that_the_relays_key_signed() {
    let relay = TestRelay::start_with("[mailbox]\ntime_to_live = \"9d\"").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    let content_sha256 = sha256(&body);
    let of = Receipted {
        origin: a.name(),
        destination: b.name(),
        txn_id: "t",
        content_sha256: &content_sha256,
    };
    let answer = a.leave(&relay, &b, "t", &body).await;
    let first = receipt(&relay, &answer, &of).await.unwrap();
    assert_eq!(first.received_at, relay.clock.now());
    assert_eq!(first.expires_at, relay.clock.now().after(9 * DAY));

    relay.clock.advance(DAY);
    let answer = a.leave(&relay, &b, "t", &body).await;
    let again = receipt(&relay, &answer, &of).await.unwrap();
    assert_eq!(again.received_at, first.received_at.after(DAY), "of what it has already");

    let other = Receipted { txn_id: "u", ..of };
    let refused = receipt(&relay, &answer, &other).await;
    assert_eq!(refused, Err(ReceiptError::OtherTransaction));
}

#[tokio::test]
async fn a_receipt_names_the_proofs_origin_whoever_brings_the_mail() {
    let relay = TestRelay::start().await;
    let (a, b, carrier) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let content = Content::parse(Bytes::from(a.transaction(&relay, "proven"))).unwrap();
    let extras = a.extras(&relay, b.name(), "t", &content);
    let body = content.to_deposit_body(&extras).unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    let answer = carrier.leave(&relay, &b, "t", body).await;
    let of = Receipted {
        origin: a.name(),
        destination: b.name(),
        txn_id: "t",
        content_sha256: content.sha256(),
    };
    receipt(&relay, &answer, &of).await.unwrap();
}

#[tokio::test]
async fn mail_that_is_turned_away_has_no_receipt() {
    let relay = TestRelay::start_with("[mailbox]\nenvelopes_max = 1").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "1", &a.transaction(&relay, "m")).await.assert_ok();
    let full = a.leave(&relay, &b, "2", &a.transaction(&relay, "m")).await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(Receipt::in_answer(&full.body), None);
}

fn left(destination: &TestServer, txn_id: &str, body: &str) -> LeftTransaction {
    LeftTransaction {
        destination: destination.name().clone(),
        txn_id: txn_id.to_owned(),
        content_sha256: hex(&sha256(body)),
    }
}

async fn ask_raw(relay: &TestRelay, origin: &TestServer, request: &LeftRequest) -> Answer {
    let body = String::from_utf8(request.to_canonical_json()).unwrap();
    origin.call(relay, Method::POST, LEFT, &body).await
}

async fn ask(relay: &TestRelay, origin: &TestServer, ask: &[LeftTransaction]) -> Vec<LeftState> {
    let (ask, signed_at) = (ask.to_vec(), relay.clock.now());
    let request = LeftRequest { ask, withdraw: Vec::new(), signed_at };
    let answer = ask_raw(relay, origin, &request).await;
    answer.assert_ok();
    serde_json::from_slice::<LeftAnswer>(&answer.body).unwrap().states
}

#[tokio::test]
async fn an_origin_hears_what_became_of_its_mail() {
    use LeftState::{Gone, Held, Unknown};
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    let mut request = collect_all(&relay);
    request.acknowledge = acknowledge_all(&b.collect(&relay, &request).await);
    b.collect(&relay, &request).await;
    a.leave(&relay, &b, "2", &mail).await.assert_ok();
    let asked = [left(&b, "2", &mail), left(&b, "1", &mail), left(&b, "3", &mail)];
    assert_eq!(ask(&relay, &a, &asked).await, [Held, Gone, Unknown]);
    let grown = left(&b, "2", &a.transaction(&relay, "grown"));
    assert_eq!(ask(&relay, &a, &[grown]).await, [Unknown]);

    relay.clock.advance(31 * DAY);
    assert_eq!(ask(&relay, &a, &asked[..1]).await, [Unknown], "it is past its time");
}

#[tokio::test]
async fn mail_in_a_mailbox_that_the_operator_holds_is_held() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    let hold = format!("/mailboxes/{}/hold", b.name());
    let held = relay.operator(Method::POST, &hold, "").await;
    assert!(held.status.is_success(), "{held:?}");
    assert_eq!(ask(&relay, &a, &[left(&b, "1", &mail)]).await, [LeftState::Held]);
}

#[tokio::test]
async fn nobody_hears_of_the_mail_of_others_be_the_relay_open_or_not() {
    let relay = TestRelay::start().await;
    let (a, b, stranger) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    for asks in [&stranger, &b] {
        let states = ask(&relay, asks, &[left(&b, "1", &mail), left(&stranger, "1", &mail)]).await;
        assert_eq!(states, [LeftState::Unknown; 2]);
    }
    let closed = TestRelay::start_with("serve = \"invited\"").await;
    let states = ask(&closed, &a, &[left(&b, "1", &mail)]).await;
    assert_eq!(states, [LeftState::Unknown]);
}

#[tokio::test]
async fn a_question_is_bounded_in_number_and_in_time() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let one = left(&b, "1", "{}");
    let signed_at = relay.clock.now();
    let full = LeftRequest { ask: vec![one.clone(); LEFT_MAX], withdraw: Vec::new(), signed_at };
    ask_raw(&relay, &a, &full).await.assert_ok();
    let too_many = LeftRequest { withdraw: vec![one.clone()], ..full };
    ask_raw(&relay, &a, &too_many).await.assert_refused(400, "M_INVALID_PARAM");
    let malformed = LeftTransaction { content_sha256: "AB".to_owned(), ..one.clone() };
    let malformed = LeftRequest { ask: vec![malformed], withdraw: Vec::new(), signed_at };
    ask_raw(&relay, &a, &malformed).await.assert_refused(400, "M_INVALID_PARAM");
    let signed_at = signed_at.before(Duration::from_secs(61));
    let old = LeftRequest { ask: vec![one], withdraw: Vec::new(), signed_at };
    let refused = ask_raw(&relay, &a, &old).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(refused.json()["now"], relay.clock.now().as_millis());
}

fn elsewhere(origin: &TestServer, txn_id: &str, body: &str) -> HeldElsewhere {
    HeldElsewhere {
        origin: origin.name().clone(),
        txn_id: txn_id.to_owned(),
        sha256: hex(&sha256(body)),
    }
}

#[tokio::test]
async fn what_its_owner_has_from_elsewhere_is_not_handed_over_and_counts_as_acknowledged() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let bodies = ["m0", "m1", "m2"].map(|text| a.transaction(&relay, text));
    for (n, body) in bodies.iter().enumerate() {
        a.leave(&relay, &b, &format!("t{n}"), body).await.assert_ok();
    }
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&a, "t0", &bodies[0]), elsewhere(&a, "t2", &bodies[2])];
    let collected = b.collect(&relay, &request).await;
    assert_eq!((texts(&collected), collected.queued.count), (vec!["m1".to_owned()], 1));

    let asked = [left(&b, "t0", &bodies[0]), left(&b, "t1", &bodies[1])];
    assert_eq!(ask(&relay, &a, &asked).await, [LeftState::Gone, LeftState::Held]);
    a.leave(&relay, &b, "t0", &bodies[0]).await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["m1"]);
    let metrics = relay.at_operators(Method::GET, "/metrics", "", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("restante_relay_acknowledged_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_late_copy_of_what_a_registered_owner_has_is_taken_and_not_kept() {
    let relay = TestRelay::start().await;
    let (a, b, stranger) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    b.register(&relay, &b.registration(&relay)).await.assert_ok();
    let body = a.transaction(&relay, "m");
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&a, "t", &body)];
    for owner in [&b, &stranger] {
        owner.collect(&relay, &request).await;
        let answer = a.leave(&relay, owner, "t", &body).await;
        let content_sha256 = sha256(&body);
        let of = Receipted {
            origin: a.name(),
            destination: owner.name(),
            txn_id: "t",
            content_sha256: &content_sha256,
        };
        receipt(&relay, &answer, &of).await.unwrap();
    }
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
    let kept = stranger.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(kept.envelopes.len(), 1, "for whoever is not registered nothing is remembered");
}

#[tokio::test]
async fn what_one_claims_to_have_keeps_no_mail_from_others() {
    let relay = TestRelay::start().await;
    let (a, b, hostile) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    hostile.register(&relay, &hostile.registration(&relay)).await.assert_ok();
    let bodies = ["before", "after"].map(|text| a.transaction(&relay, text));
    a.leave(&relay, &b, "before", &bodies[0]).await.assert_ok();
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&a, "before", &bodies[0]), elsewhere(&a, "after", &bodies[1])];
    hostile.collect(&relay, &request).await;
    a.leave(&relay, &b, "after", &bodies[1]).await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["before", "after"]);
}

#[tokio::test]
async fn too_much_from_elsewhere_and_malformed_hashes_are_refused_without_effect() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&a, "t", &body); HAVE_MAX + 1];
    b.collect_raw(&relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
    request.have.truncate(2);
    request.have[1].sha256 = "A".repeat(64);
    b.collect_raw(&relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
    assert_eq!(b.collect(&relay, &collect_all(&relay)).await.queued.count, 1);
}
