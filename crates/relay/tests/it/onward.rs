//! Mail that the relay delivers itself, to homeservers that are not registered with it.

mod destination;
mod hostile;

use std::time::Duration;

use http::Method;
use http::header::AUTHORIZATION;
use restante_federation_proto::Clock as _;
use restante_relay_api::endpoints::{LEFT, WAYBILL_HEADER, send_relay_target};
use restante_relay_api::{
    Content, DepositBody, Extras, LeftRequest, LeftTransaction, RegistrationRequest, Waybill, hex,
};
use serde_json::{Value, json};

use crate::harness::{Answer, TestRelay, TestServer, acknowledge_all, collect_all, texts};
use destination::{Destination, Say};

/// A relay that calls the destination by the operator's route, with waits that suit a test.
fn config(destination: &Destination, more: &str) -> String {
    format!(
        "{more}\n[federation.routes]\n\"{}\" = \"{}\"\n[onward]\norigins = [\"*\"]\nretry_after_first = \"100ms\"\npause_after_return = \"0s\"\n",
        destination.server.name(),
        destination.url()
    )
}

async fn relay_for(destination: &Destination) -> TestRelay {
    TestRelay::start_with(&config(destination, "")).await
}

async fn outgoing(relay: &TestRelay, seed: u8) -> TestServer {
    let server = TestServer::new(seed);
    let request = RegistrationRequest { outgoing: true, ..server.registration(relay) };
    let granted = server.register(relay, &request).await.assert_ok();
    assert!(granted["outgoing"]["envelopes_max"].is_u64(), "{granted}");
    server
}

/// What a node leaves: `text` for `to`, to be delivered onward.
fn letter(from: &TestServer, relay: &TestRelay, to: &TestServer, txn: &str, text: &str) -> String {
    let content = Content::parse(from.transaction(relay, text).into()).unwrap();
    let extras = from.extras(relay, to.name(), txn, &content).asking_onward().unwrap();
    body(&content, &extras)
}

fn body(content: &Content, extras: &Extras) -> String {
    String::from_utf8(content.to_deposit_body(extras).unwrap().to_vec()).unwrap()
}

async fn leave(
    relay: &TestRelay,
    from: &TestServer,
    to: &TestServer,
    txn: &str,
    text: &str,
) -> Answer {
    let target = send_relay_target(txn, to.name());
    from.call(relay, Method::PUT, target.as_str(), &letter(from, relay, to, txn, text)).await
}

/// What the operator is shown of a mailbox.
async fn mailbox(relay: &TestRelay, of: &TestServer) -> Value {
    let found = relay.operator(Method::GET, &format!("/mailboxes/{}", of.name()), "").await;
    found.assert_ok()
}

/// Waits until the mailbox says what is expected of `key`.
async fn until(relay: &TestRelay, of: &TestServer, key: &str, expected: u64) {
    let look = async {
        while mailbox(relay, of).await[key] != json!(expected) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(60), look).await;
    looked.unwrap_or_else(|_| panic!("{key} never becomes {expected}"));
}

#[tokio::test]
async fn mail_comes_to_a_homeserver_of_which_nobody_asked_anything_as_its_origin_signed_it() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    let letter = letter(&a, &relay, &b.server, "t1", "hello");
    let left = DepositBody::parse(letter.clone().into()).unwrap();
    let target = send_relay_target("t1", b.server.name());

    a.call(&relay, Method::PUT, target.as_str(), &letter).await.assert_ok();

    let call = b.next_call().await;
    let proof = left.extras.proof.unwrap();
    assert_eq!((call.method, call.uri.to_string()), (Method::PUT, proof.uri));
    assert_eq!(call.headers[AUTHORIZATION], proof.authorization.as_str());
    let waybill = call.headers[WAYBILL_HEADER].to_str().unwrap();
    assert_eq!(Waybill::from_header(waybill).unwrap(), left.extras.waybill.unwrap());
    assert_eq!(call.body, *left.content.raw());
    until(&relay, &b.server, "delivered_total", 1).await;
    let mailbox = mailbox(&relay, &b.server).await;
    assert_eq!((&mailbox["envelopes"], &mailbox["acknowledged_total"]), (&json!(0), &json!(0)));
    // What was delivered is known.
    a.call(&relay, Method::PUT, target.as_str(), &letter).await.assert_ok();
    assert_eq!(collect_texts(&relay, &b.server).await, [""; 0]);
}

async fn collect_texts(relay: &TestRelay, of: &TestServer) -> Vec<String> {
    texts(&of.collect(relay, &collect_all(relay)).await)
}

#[tokio::test]
async fn a_relay_for_invited_servers_delivers_onward_to_others_and_serves_them_no_more_than_before()
{
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = TestRelay::start_with(&config(&b, "serve = \"listed\"\nlisted = [\"*\"]")).await;
    let a = outgoing(&relay, 1).await;
    let relay = relay.restart_with(&config(&b, "serve = \"invited\"")).await;
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();

    let plain = a.transaction(&relay, "plain");
    a.leave(&relay, &b.server, "t2", &plain).await.assert_refused(403, "M_FORBIDDEN");
    let collected = b.server.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(texts(&collected), ["one"], "it is the destination's own mail");
    let mut request = collect_all(&relay);
    request.acknowledge = acknowledge_all(&collected);
    assert_eq!(b.server.collect(&relay, &request).await.envelopes.len(), 0);
    let registration = b.server.registration(&relay);
    b.server.register(&relay, &registration).await.assert_refused(403, "M_FORBIDDEN");
    until(&relay, &b.server, "acknowledged_total", 1).await;
}

#[tokio::test]
async fn mail_for_a_dark_homeserver_comes_when_it_shows_life_also_after_a_restart() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let slow = config(&b, "").replace("100ms", "1h");
    let relay = TestRelay::start_with(&slow).await;
    let a = outgoing(&relay, 1).await;
    for (txn, text) in [("t1", "one"), ("t2", "two"), ("t3", "three")] {
        leave(&relay, &a, &b.server, txn, text).await.assert_ok();
    }
    b.next_attempt().await;
    let relay = relay.restart_with(&slow).await;
    b.forget_calls();
    b.say(Say::Taken);

    // A request that is authenticated is a sign of life.
    b.server.relay_txn(&relay, 0).await;

    until(&relay, &b.server, "delivered_total", 3).await;
    assert_eq!(b.texts(), ["one", "two", "three"]);
}

#[tokio::test]
async fn mail_is_tried_again_until_the_homeserver_is_there() {
    let b = Destination::start(2).await;
    b.say(Say::Status(502, "<html>"));
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    b.next_attempt().await;
    b.say(Say::Taken);

    b.server.relay_txn(&relay, 0).await;

    until(&relay, &b.server, "delivered_total", 1).await;
}

#[tokio::test]
async fn what_is_refused_waits_to_be_collected_and_the_rest_goes_on() {
    let b = Destination::start(2).await;
    b.say_to("two", Say::Status(403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#));
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    for (txn, text) in [("t1", "one"), ("t2", "two"), ("t3", "three")] {
        leave(&relay, &a, &b.server, txn, text).await.assert_ok();
    }

    until(&relay, &b.server, "delivered_total", 2).await;

    let path = format!("/mailboxes/{}/envelopes", b.server.name());
    let lines = relay.operator(Method::GET, &path, "").await.assert_ok();
    let line = &lines["items"][0];
    assert_eq!((&line["txn_id"], &line["onward"]), (&json!("t2"), &json!("refused")));
    assert_eq!(b.texts(), ["one", "two", "three"], "each was sent once");
    assert_eq!(collect_texts(&relay, &b.server).await, ["two"]);
}

#[tokio::test]
async fn what_can_not_be_verified_now_is_tried_again() {
    let b = Destination::start(2).await;
    b.say(Say::Status(401, r#"{"errcode":"M_UNAUTHORIZED","error":"no key"}"#));
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    b.next_call().await;
    b.say(Say::Taken);

    until(&relay, &b.server, "delivered_total", 1).await;
}

#[tokio::test]
async fn a_homeserver_gets_one_transaction_at_a_time_in_the_order_of_each_origin() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = relay_for(&b).await;
    let (a, c) = (outgoing(&relay, 1).await, outgoing(&relay, 3).await);
    for number in 0..10 {
        let (txn, text) = (format!("t{number}"), format!("a{number}"));
        leave(&relay, &a, &b.server, &txn, &text).await.assert_ok();
        let text = format!("c{number}");
        leave(&relay, &c, &b.server, &txn, &text).await.assert_ok();
    }
    b.next_attempt().await;
    b.forget_calls();
    b.say(Say::Taken);

    b.server.relay_txn(&relay, 0).await;
    until(&relay, &b.server, "delivered_total", 20).await;

    assert_eq!(b.calls_at_once_max(), 1);
    let of = |origin: &str| -> Vec<String> {
        let texts = b.texts().into_iter().filter(|text| text.starts_with(origin));
        // What was cut off may have come before.
        let mut texts: Vec<_> = texts.collect();
        texts.dedup();
        texts
    };
    let numbered = |origin: &str| (0..10).map(|n| format!("{origin}{n}")).collect::<Vec<_>>();
    assert_eq!((of("a"), of("c")), (numbered("a"), numbered("c")));
    let all = b.texts();
    let first_of_c = all.iter().position(|text| text.starts_with('c')).unwrap();
    let last_of_a = all.iter().rposition(|text| text.starts_with('a')).unwrap();
    assert!(first_of_c < last_of_a, "they take turns: {all:?}");
}

#[tokio::test]
async fn mail_for_a_registered_server_lies_in_its_mailbox_and_it_is_not_called() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    let registration = b.server.registration(&relay);
    b.server.register(&relay, &registration).await.assert_ok();

    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();

    let collected = b.server.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(texts(&collected), ["one"]);
    let members = std::str::from_utf8(&collected.envelopes[0].extras).unwrap();
    assert!(members.contains("org.restante.proof") && !members.contains("onward"), "{members}");
    let path = format!("/mailboxes/{}/envelopes", b.server.name());
    let lines = relay.operator(Method::GET, &path, "").await.assert_ok();
    assert_eq!(lines["items"][0]["onward"], "no");
}

#[tokio::test]
async fn the_operator_sees_moves_and_holds_what_is_to_be_delivered() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    let path = |what: &str| format!("/mailboxes/{}{what}", b.server.name());
    let exported = relay.operator(Method::GET, &path("/export"), "").await.body;
    assert!(std::str::from_utf8(&exported).unwrap().contains(r#""onward":"wanted""#));
    relay.operator(Method::POST, &path("/drop"), r#"{"all":true}"#).await.assert_ok();
    until(&relay, &b.server, "envelopes", 0).await;
    b.say(Say::Taken);
    b.forget_calls();

    relay.operator(Method::POST, &path("/import"), exported).await.assert_ok();

    until(&relay, &b.server, "delivered_total", 1).await;
    assert_eq!(b.texts(), ["one"]);
}

#[tokio::test]
async fn what_its_origin_takes_back_is_not_delivered() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = relay_for(&b).await;
    let (a, c) = (outgoing(&relay, 1).await, outgoing(&relay, 3).await);
    let letter = letter(&a, &relay, &b.server, "t1", "one");
    let target = send_relay_target("t1", b.server.name());
    a.call(&relay, Method::PUT, target.as_str(), &letter).await.assert_ok();
    let left = DepositBody::parse(letter.into()).unwrap();
    let withdrawn = LeftTransaction {
        destination: b.server.name().clone(),
        txn_id: "t1".to_owned(),
        content_sha256: hex(left.content.sha256()),
    };
    let request = LeftRequest {
        ask: vec![withdrawn.clone()],
        withdraw: vec![withdrawn],
        signed_at: relay.clock.now(),
    };
    let body = String::from_utf8(request.to_canonical_json()).unwrap();
    // Nobody takes back another's.
    let answer = c.call(&relay, Method::POST, LEFT, &body).await.assert_ok();
    assert_eq!(answer["states"], json!(["unknown"]));
    assert_eq!(mailbox(&relay, &b.server).await["envelopes"], 1);

    let answer = a.call(&relay, Method::POST, LEFT, &body).await.assert_ok();
    assert_eq!(answer["states"], json!(["unknown"]));
    let mail = mailbox(&relay, &b.server).await;
    assert_eq!((&mail["envelopes"], &mail["withdrawn_total"]), (&json!(0), &json!(1)));
}
