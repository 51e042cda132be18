//! What strangers, and registered origins that mean harm, can't do with a relay that calls others.

use std::time::Duration;

use http::Method;
use restante_relay_api::endpoints::send_relay_target;
use restante_relay_api::{Content, Extras};
use serde_json::json;

use super::destination::{Destination, Say};
use super::{body, config, leave, letter, mailbox, outgoing, relay_for, until};
use crate::harness::{TestRelay, TestServer};

#[tokio::test]
async fn a_server_that_is_not_registered_as_outgoing_has_nothing_delivered() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let stranger = TestServer::new(7);
    let refused = leave(&relay, &stranger, &b.server, "t1", "one").await;
    refused.assert_refused(403, "M_FORBIDDEN");

    let registration = stranger.registration(&relay);
    let granted = stranger.register(&relay, &registration).await.assert_ok();
    assert_eq!(granted["outgoing"], json!(null));
    let refused = leave(&relay, &stranger, &b.server, "t1", "one").await;
    refused.assert_refused(403, "M_FORBIDDEN");
    assert!(b.calls().is_empty());
}

#[tokio::test]
async fn nobody_brings_anothers_mail_to_be_delivered() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let (a, carrier) = (outgoing(&relay, 1).await, outgoing(&relay, 3).await);
    let letter = letter(&a, &relay, &b.server, "t1", "one");
    let target = send_relay_target("t1", b.server.name());
    let refused = carrier.call(&relay, Method::PUT, target.as_str(), &letter).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    assert!(b.calls().is_empty());
}

#[tokio::test]
async fn mail_without_its_origins_proof_is_not_delivered() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    let content = Content::parse(a.transaction(&relay, "one").into()).unwrap();
    let target = send_relay_target("t1", b.server.name());
    let proofless = body(&content, &Extras::default().asking_onward().unwrap());
    let refused = a.call(&relay, Method::PUT, target.as_str(), &proofless).await;
    refused.assert_refused(400, "M_BAD_JSON");
    // A proof of another destination is none.
    let elsewhere = a.extras(&relay, a.name(), "t1", &content).asking_onward().unwrap();
    let refused = a.call(&relay, Method::PUT, target.as_str(), &body(&content, &elsewhere)).await;
    refused.assert_refused(400, "M_BAD_JSON");
    assert!(b.calls().is_empty());
}

#[tokio::test]
async fn an_operator_switches_it_off_or_names_whose_mail_is_delivered() {
    let b = Destination::start(2).await;
    let all = "origins = [\"*\"]";
    for instead in [&format!("{all}\nenabled = false"), "origins = [\"friends.example\"]", ""] {
        let relay = TestRelay::start_with(&config(&b, "").replace(all, instead)).await;
        let a = TestServer::new(1);
        let mut registration = a.registration(&relay);
        registration.outgoing = true;
        let granted = a.register(&relay, &registration).await.assert_ok();
        assert_eq!(granted["outgoing"], json!(null));
        leave(&relay, &a, &b.server, "t1", "one").await.assert_refused(403, "M_FORBIDDEN");
    }
    assert!(b.calls().is_empty());
}

#[tokio::test]
async fn a_private_address_is_not_called_by_a_strangers_word() {
    let b = Destination::start(2).await;
    let relay = TestRelay::start_with(
        "[onward]\norigins = [\"*\"]\nretry_after_first = \"50ms\"\npause_after_return = \"0s\"",
    )
    .await;
    let a = outgoing(&relay, 1).await;
    let victim = TestServer::named(&b.address().to_string(), 9);
    let reached = TestServer::named(&format!("localhost:{}", b.address().port()), 9);
    for to in [&victim, &reached] {
        leave(&relay, &a, to, "t1", "one").await.assert_ok();
        attempts(&relay, "unreachable").await;
    }
    assert!(b.calls().is_empty());
}

/// Waits until an attempt with this outcome is counted.
async fn attempts(relay: &TestRelay, outcome: &str) {
    let line = format!("restante_relay_onward_total{{outcome=\"{outcome}\"}} 0");
    let look = async {
        loop {
            let metrics = relay.at_operators(Method::GET, "/metrics", "", "").await.body;
            let metrics = String::from_utf8(metrics.to_vec()).unwrap();
            assert!(metrics.contains("restante_relay_onward_total"), "{metrics}");
            if !metrics.contains(&line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), look).await.expect("no such attempt");
}

#[tokio::test]
async fn what_one_origin_has_delivered_to_one_destination_and_to_all_is_bounded() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let caps = "origin_envelopes_max = 3\ndestination_envelopes_max = 2";
    let relay = TestRelay::start_with(&format!("{}{caps}", config(&b, ""))).await;
    let a = outgoing(&relay, 1).await;
    for txn in ["t1", "t2"] {
        leave(&relay, &a, &b.server, txn, txn).await.assert_ok();
    }
    let full = leave(&relay, &a, &b.server, "t3", "three").await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(full.json()["org.restante.full"], "share");
    let (d, e) = (TestServer::new(4), TestServer::new(5));
    leave(&relay, &a, &d, "t4", "four").await.assert_ok();
    let full = leave(&relay, &a, &e, "t5", "five").await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(full.json()["org.restante.full"], "share");
    let c = outgoing(&relay, 3).await;
    leave(&relay, &c, &b.server, "t1", "one").await.assert_ok();
}

#[tokio::test]
async fn one_origin_has_mail_for_so_many_destinations_and_takes_the_places_of_nobody_else() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let caps = "origin_destinations_max = 2\nmailboxes_max = 3";
    let storage = "[storage]\nmailboxes_max = 5";
    let relay = TestRelay::start_with(&format!("{}{caps}", config(&b, storage))).await;
    let (a, c) = (outgoing(&relay, 1).await, outgoing(&relay, 3).await);
    let another = outgoing(&relay, 9).await;
    let [d, e, f, g, h] = [4, 5, 6, 7, 8].map(TestServer::new);
    for to in [&b.server, &d] {
        leave(&relay, &a, to, "t1", "one").await.assert_ok();
    }
    let full = leave(&relay, &a, &e, "t2", "two").await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(full.json()["org.restante.full"], "share");
    leave(&relay, &a, &b.server, "t3", "three").await.assert_ok();
    leave(&relay, &c, &b.server, "t1", "one").await.assert_ok();
    leave(&relay, &c, &e, "t1", "one").await.assert_ok();
    // There are three, whoever they are for.
    let full = leave(&relay, &another, &f, "t2", "two").await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(full.json()["org.restante.full"], "mailbox");

    // The origins' own are among the five of storage.mailboxes_max, and those three are not.
    for to in [&g, &h] {
        a.leave(&relay, to, "t4", &a.transaction(&relay, "plain")).await.assert_ok();
    }
    let full = a.leave(&relay, &f, "t4", &a.transaction(&relay, "plain")).await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    let status = relay.operator(Method::GET, "/status", "").await.assert_ok();
    let totals = &status["totals"];
    assert_eq!((&totals["mailboxes"], &totals["onward_mailboxes"]), (&json!(8), &json!(3)));

    // One that is empty makes room for another.
    b.say(Say::Taken);
    until(&relay, &b.server, "delivered_total", 3).await;
    leave(&relay, &another, &f, "t2", "two").await.assert_ok();
    let gone = relay.operator(Method::GET, &format!("/mailboxes/{}", b.server.name()), "").await;
    assert_eq!(gone.status.as_u16(), 404);
}

#[tokio::test]
async fn mail_that_lies_there_is_refused_if_it_is_to_be_delivered_and_its_share_is_full() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = TestRelay::start_with(&format!("{}origin_envelopes_max = 1", config(&b, ""))).await;
    let (a, d) = (outgoing(&relay, 1).await, TestServer::new(4));
    leave(&relay, &a, &d, "t1", "one").await.assert_ok();
    let content = Content::parse(a.transaction(&relay, "plain").into()).unwrap();
    let plain = a.extras(&relay, b.server.name(), "t2", &content);
    let target = send_relay_target("t2", b.server.name());
    let leave = async |extras: &Extras| {
        a.call(&relay, Method::PUT, target.as_str(), &body(&content, extras)).await
    };
    leave(&plain).await.assert_ok();

    let full = leave(&plain.clone().asking_onward().unwrap()).await;

    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(full.json()["org.restante.full"], "share");
    leave(&plain).await.assert_ok();
    assert_eq!(mailbox(&relay, &b.server).await["envelopes"], 1);
}

#[tokio::test]
async fn a_destination_that_redirects_or_floods_is_not_followed_or_read() {
    let (b, elsewhere) = (Destination::start(2).await, Destination::start(4).await);
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    b.say(Say::Redirect(format!("{}/elsewhere", elsewhere.url())));
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    b.next_call().await;
    attempts(&relay, "unreachable").await;
    b.say(Say::Flood);
    b.forget_calls();
    b.next_call().await;
    let mail = mailbox(&relay, &b.server).await;
    assert_eq!((&mail["envelopes"], &mail["delivered_total"]), (&json!(1), &json!(0)));
    b.say(Say::Taken);
    until(&relay, &b.server, "delivered_total", 1).await;
    assert!(elsewhere.calls().is_empty());
}

#[tokio::test]
async fn what_stands_before_a_homeserver_neither_takes_mail_nor_refuses_it_for_good() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    b.say(Say::Status(200, "<html>This domain is for sale"));
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    b.next_call().await;
    attempts(&relay, "unreachable").await;
    b.say(Say::Status(403, "<html>"));
    b.forget_calls();
    b.next_call().await;
    let mail = mailbox(&relay, &b.server).await;
    assert_eq!((&mail["envelopes"], &mail["delivered_total"]), (&json!(1), &json!(0)));
    b.say(Say::Taken);
    until(&relay, &b.server, "delivered_total", 1).await;
}

#[tokio::test]
async fn a_relay_delivers_nothing_to_itself() {
    let b = Destination::start(2).await;
    let relay = relay_for(&b).await;
    let a = outgoing(&relay, 1).await;
    let itself = TestServer::named(relay.name().as_str(), 9);
    leave(&relay, &a, &itself, "t1", "one").await.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn mail_that_nobody_ever_takes_expires_and_is_counted() {
    let b = Destination::start(2).await;
    b.say(Say::Away);
    let relay = TestRelay::start_with(&config(&b, "[mailbox]\ntime_to_live = \"1d\"\n")).await;
    let a = outgoing(&relay, 1).await;
    leave(&relay, &a, &b.server, "t1", "one").await.assert_ok();
    b.next_attempt().await;
    relay.clock.advance(Duration::from_hours(25));
    until(&relay, &b.server, "expired_total", 1).await;
    assert_eq!(mailbox(&relay, &b.server).await["envelopes"], 0);
}
