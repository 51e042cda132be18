//! Quotas, rates, places and times: what is too much, and what it costs others (nothing).

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use restante_federation_proto::{Clock, Timestamp};
use restante_mailbox::{Custody, Found, MemoryStore};
use restante_relay::Stores;
use restante_relay_api::endpoints::{COLLECT, send_relay_target};
use restante_relay_api::{CollectRequest, FULL_MEMBER, Fullness, REQUEST_ID_HEADER, RequestId};
use serde_json::{Value, json};

use crate::harness::{Answer, TestRelay, TestServer, collect_all, texts};

async fn with_store(config: &str) -> (TestRelay, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    (TestRelay::start_on(Stores::of(store.clone()), config).await, store)
}

async fn leave(relay: &TestRelay, from: &TestServer, to: &TestServer, text: &str) -> Answer {
    from.leave(relay, to, text, &from.transaction(relay, text)).await
}

#[track_caller]
fn assert_full(answer: &Answer, full: Fullness) {
    answer.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(Fullness::in_error(&answer.body), Some(full), "{answer:?}");
    assert!(answer.json()[FULL_MEMBER].is_string());
    assert!(answer.json()["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn one_sender_does_not_use_up_the_share_of_another() {
    let relay = TestRelay::start_with("[mailbox]\norigin_envelopes_max = 2").await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    for text in ["m0", "m1"] {
        leave(&relay, &a, &b, text).await.assert_ok();
    }
    assert_full(&leave(&relay, &a, &b, "m2").await, Fullness::Share);
    leave(&relay, &a, &b, "m1").await.assert_ok();
    leave(&relay, &c, &b, "of another").await.assert_ok();
    leave(&relay, &a, &c, "elsewhere").await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["m0", "m1", "of another"]);
}

#[tokio::test]
async fn a_full_relay_says_so_and_takes_mail_again_when_some_is_collected() {
    let relay = TestRelay::start_with("[storage]\ntotal_envelopes_max = 2").await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    leave(&relay, &a, &b, "m0").await.assert_ok();
    leave(&relay, &a, &c, "m1").await.assert_ok();
    assert_full(&leave(&relay, &a, &b, "m2").await, Fullness::Relay);
    let mut request = collect_all(&relay);
    let collected = b.collect(&relay, &request).await;
    request.acknowledge = crate::harness::acknowledge_all(&collected);
    b.collect(&relay, &request).await;
    leave(&relay, &a, &b, "m2").await.assert_ok();
}

#[tokio::test]
async fn while_the_disk_is_low_nothing_is_taken_and_what_is_there_goes_out() {
    let (relay, store) = with_store("").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    leave(&relay, &a, &b, "before").await.assert_ok();
    let low = format!("[storage]\nfree_disk_bytes_min = {}", i64::MAX);
    let relay = TestRelay::start_on(Stores::of(store), &low).await;
    assert_full(&leave(&relay, &a, &b, "meanwhile").await, Fullness::Relay);
    let mut request = collect_all(&relay);
    let collected = b.collect(&relay, &request).await;
    assert_eq!(texts(&collected), ["before"]);
    let [lost] = collected.told.turned_away.origins.as_slice() else { panic!("{collected:?}") };
    assert_eq!((lost.full, lost.count), (Some(Fullness::Relay), 1));
    request.acknowledge = crate::harness::acknowledge_all(&collected);
    assert_eq!(b.collect(&relay, &request).await.queued.count, 0);
}

#[tokio::test]
async fn the_owner_hears_once_what_was_turned_away_from_whom_and_since_when() {
    let relay = TestRelay::start_with("[mailbox]\nenvelopes_max = 1").await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    leave(&relay, &a, &b, "m0").await.assert_ok();
    let since = relay.clock.now();
    for (from, text) in [(&a, "m1"), (&a, "m2"), (&c, "m3")] {
        assert_full(&leave(&relay, from, &b, text).await, Fullness::Mailbox);
        relay.clock.advance(Duration::from_secs(1));
    }
    let mut request = collect_all(&relay);
    let told = b.collect(&relay, &request).await.told;
    let of = |server: &TestServer| {
        let of_server =
            told.turned_away.origins.iter().find(|l| l.origin.as_ref() == Some(server.name()));
        let found = of_server.unwrap();
        (found.full, found.count, found.since)
    };
    assert_eq!(of(&a), (Some(Fullness::Mailbox), 2, since));
    assert_eq!(of(&c).1, 1);
    assert_eq!(b.collect(&relay, &request).await.told, told, "until it says that it has heard");

    request.heard_until = told.until();
    assert!(b.collect(&relay, &request).await.told.turned_away.is_empty());
    request.heard_until = None;
    assert!(b.collect(&relay, &request).await.told.turned_away.is_empty());
    relay.clock.advance(Duration::from_secs(1));
    assert_full(&leave(&relay, &a, &b, "m4").await, Fullness::Mailbox);
    request.signed_at = relay.clock.now();
    assert_eq!(b.collect(&relay, &request).await.told.turned_away.origins.len(), 1);
    assert!(c.collect(&relay, &request).await.told.turned_away.is_empty(), "nobody else's");
}

#[tokio::test]
async fn a_held_mailbox_takes_mail_hands_none_out_and_says_so() {
    let (relay, store) = with_store("").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    leave(&relay, &a, &b, "m").await.assert_ok();
    assert_eq!(store.hold(b.name()).await.unwrap(), Found::Mailbox);
    leave(&relay, &a, &b, "meanwhile").await.assert_ok();
    let held = b.collect(&relay, &collect_all(&relay)).await;
    assert!(held.envelopes.is_empty() && held.told.held);
    assert_eq!(held.queued.count, 2);
    assert_eq!(b.relay_txn(&relay, 0).await["entries_queued"], json!(false));
    store.release(b.name()).await.unwrap();
    let released = b.collect(&relay, &collect_all(&relay)).await;
    assert!(!released.told.held);
    assert_eq!(texts(&released), ["m", "meanwhile"]);
}

#[tokio::test]
async fn strangers_make_only_so_many_mailboxes_and_the_registered_get_theirs() {
    let relay = TestRelay::start_with("[storage]\nmailboxes_max = 2").await;
    let (a, b, c, d) =
        (TestServer::new(1), TestServer::new(2), TestServer::new(3), TestServer::new(4));
    leave(&relay, &a, &b, "m0").await.assert_ok();
    leave(&relay, &a, &c, "m1").await.assert_ok();
    assert_full(&leave(&relay, &a, &d, "m2").await, Fullness::Mailbox);
    leave(&relay, &a, &b, "m3").await.assert_ok();
    d.register(&relay, &d.registration(&relay)).await.assert_ok();
    leave(&relay, &a, &d, "m4").await.assert_ok();
    let relay = relay.restart().await;
    leave(&relay, &a, &b, "m5").await.assert_ok();
}

/// When the only envelope in a mailbox expires.
async fn expires_at(store: &MemoryStore, owner: &TestServer) -> Timestamp {
    let lines = store.envelopes(owner.name(), None, 10).await.unwrap();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    line.expires_at
}

#[tokio::test]
async fn typing_and_presence_are_answered_and_kept_for_a_minute() {
    let (relay, store) = with_store("").await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let now = relay.clock.now();
    let body = |edus: Value| {
        json!({ "origin": a.name(), "origin_server_ts": now, "pdus": [], "edus": edus }).to_string()
    };
    let typing = json!({ "edu_type": "m.typing", "content": {} });
    let receipt = json!({ "edu_type": "m.receipt", "content": {} });
    a.leave(&relay, &b, "t", &body(json!([typing]))).await.assert_ok();
    assert_eq!(expires_at(&store, &b).await, now.after(Duration::from_secs(60)));
    a.leave(&relay, &c, "t", &body(json!([typing, receipt]))).await.assert_ok();
    assert_eq!(expires_at(&store, &c).await, now.after(Duration::from_hours(30 * 24)));
}

#[tokio::test]
async fn mail_is_kept_no_longer_than_its_owner_asked_for() {
    let (relay, store) = with_store("").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut request = b.registration(&relay);
    request.time_to_live_ms = Some(7_200_000);
    b.register(&relay, &request).await.assert_ok();
    leave(&relay, &a, &b, "m").await.assert_ok();
    assert_eq!(expires_at(&store, &b).await, relay.clock.now().after(Duration::from_hours(2)));
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_put_off_before_anything_is_verified_and_no_other_is() {
    let limits = "requests_per_address_per_second = 1\nrequests_per_address_burst = 3";
    let relay = TestRelay::start_with(&format!("[limits]\n{limits}")).await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let bad = || {
        let mut request =
            a.request(&relay, Method::PUT, send_relay_target("t", b.name()).as_str(), "{}");
        *request.body_mut() = restante_federation::full("changed");
        request
    };
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(relay.send_from("203.0.113.9", bad()).await.status.as_u16());
    }
    assert_eq!(answers[..3], [400, 400, 400]);
    assert_eq!(answers.last(), Some(&429));
    let refused = relay.send_from("203.0.113.9", bad()).await;
    refused.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert!((1..=1000).contains(&refused.json()["retry_after_ms"].as_u64().unwrap()));
    assert_eq!(Fullness::in_error(&refused.body), None, "nothing is full");

    let honest = a.request(
        &relay,
        Method::PUT,
        send_relay_target("t", b.name()).as_str(),
        &a.transaction(&relay, "honest"),
    );
    relay.send_from("203.0.113.10", honest).await.assert_ok();
    // Loopback brings the requests of everybody whom a proxy does not tell apart.
    for _ in 0..6 {
        leave(&relay, &a, &b, "honest").await.assert_ok();
    }
}

#[tokio::test]
async fn addresses_of_one_network_of_ipv6_are_one() {
    let limits = "requests_per_address_per_second = 1\nrequests_per_address_burst = 1";
    let relay = TestRelay::start_with(&format!("[limits]\n{limits}")).await;
    let request = || http::Request::get("/").body(restante_federation::empty()).unwrap();
    relay.send_from("2001:db8::1", request()).await.assert_refused(404, "M_UNRECOGNIZED");
    relay.send_from("2001:db8::2", request()).await.assert_refused(429, "M_LIMIT_EXCEEDED");
    relay.send_from("2001:db8:0:1::1", request()).await.assert_refused(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn a_server_that_comes_too_often_is_put_off_wherever_it_calls_from_and_no_other_is() {
    let limits = "requests_per_origin_per_second = 1\nrequests_per_origin_burst = 2";
    let relay = TestRelay::start_with(&format!("[limits]\n{limits}")).await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let ask = |server: &TestServer| {
        let body = String::from_utf8(collect_all(&relay).to_canonical_json()).unwrap();
        server.request(&relay, Method::POST, COLLECT, &body)
    };
    for number in 1..=2 {
        relay.send_from(&format!("203.0.113.{number}"), ask(&a)).await.assert_ok();
    }
    let refused = relay.send_from("203.0.113.3", ask(&a)).await;
    refused.assert_refused(429, "M_LIMIT_EXCEEDED");
    relay.send_from("203.0.113.3", ask(&b)).await.assert_ok();
    // A request in its name that it has not signed does not count against it.
    let impostor = TestServer::named(b.name().as_str(), 7);
    for _ in 0..3 {
        let answer = relay.send_from("203.0.113.4", ask(&impostor)).await;
        answer.assert_refused(401, "M_UNAUTHORIZED");
    }
    relay.send_from("203.0.113.5", ask(&b)).await.assert_ok();
}

#[tokio::test]
async fn names_that_nobody_knows_are_looked_up_only_so_often_for_one_address() {
    let relay = TestRelay::start_with("[limits]\nnewcomers_per_address_per_minute = 2").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mail = |number: usize| {
        let stranger = TestServer::named(&format!("s{number}.example"), 3);
        let target = send_relay_target("t", b.name());
        stranger.request(&relay, Method::PUT, target.as_str(), &stranger.transaction(&relay, "m"))
    };
    for number in 0..2 {
        relay.send_from("203.0.113.9", mail(number)).await.assert_refused(503, "M_UNKNOWN");
    }
    relay.send_from("203.0.113.9", mail(3)).await.assert_refused(429, "M_LIMIT_EXCEEDED");
    relay.send_from("203.0.113.10", mail(4)).await.assert_refused(503, "M_UNKNOWN");
    // Who is known is not put off, from the same address.
    let target = send_relay_target("t", b.name());
    let honest = a.request(&relay, Method::PUT, target.as_str(), &a.transaction(&relay, "m"));
    relay.send_from("203.0.113.9", honest).await.assert_ok();
}

#[tokio::test]
async fn one_more_collect_than_may_wait_for_a_mailbox_is_answered_at_once() {
    let relay = TestRelay::start_with("[limits]\nwaiting_collects_per_mailbox_max = 1").await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let waiting = CollectRequest { wait_ms: 50_000, ..collect_all(&relay) };
    let others = async {
        // One of the two is answered at once; whichever, the other goes on waiting.
        let (one, two) = (b.collect(&relay, &waiting), b.collect(&relay, &waiting));
        let (answered, other) =
            futures_util::future::select(Box::pin(one), Box::pin(two)).await.factor_first();
        assert!(answered.envelopes.is_empty());
        let mail = async {
            leave(&relay, &a, &c, "for another").await.assert_ok();
            leave(&relay, &a, &b, "m").await.assert_ok();
        };
        tokio::join!(other, mail).0
    };
    let woken = tokio::time::timeout(Duration::from_secs(30), others).await.unwrap();
    assert_eq!(texts(&woken), ["m"]);
}

#[tokio::test]
async fn who_is_not_served_takes_no_place_to_wait() {
    let relay = TestRelay::start_with("serve = \"invited\"").await;
    let waiting = CollectRequest { wait_ms: 50_000, ..collect_all(&relay) };
    let stranger = TestServer::new(9);
    let answered =
        tokio::time::timeout(Duration::from_secs(30), stranger.collect(&relay, &waiting));
    assert!(answered.await.unwrap().envelopes.is_empty());
}

#[tokio::test]
async fn each_answer_bears_the_name_of_its_request() {
    let relay = TestRelay::start().await;
    let named = |id: &str| {
        let request = http::Request::get("/_matrix/federation/v1/version");
        request.header(REQUEST_ID_HEADER, id).body(restante_federation::empty()).unwrap()
    };
    let answer = relay.send(named("from-a-node.1")).await;
    assert_eq!(answer.headers[REQUEST_ID_HEADER], "from-a-node.1");
    for unusable in ["a b", &"x".repeat(65)] {
        let answer = relay.send(named(unusable)).await;
        let made_up = answer.headers[REQUEST_ID_HEADER].to_str().unwrap();
        assert!(made_up.parse::<RequestId>().is_ok() && made_up != unusable, "{made_up}");
    }
    let refused = relay.plain(Method::GET, "/", "").await;
    assert!(refused.headers.contains_key(REQUEST_ID_HEADER));
}
