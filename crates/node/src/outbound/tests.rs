use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use bytes::Bytes;
use http::Method;
use http::header::AUTHORIZATION;
use restante_federation_proto::{
    Clock as _, KeyDocument, NotaryResponse, ServerName, SignableRequest, mint,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::config::DeliverySection;
use crate::stand_in::{HeldEvent, HeldSource};
use crate::test_site::{OWN_NAME, Reply, TestSite, identity, name};

const SECRET: &str = "s3cret";
const KEYS_QUERY: &str = "/_matrix/federation/v1/user/keys/query";
const KEYS_OF_SERVER: &str = "/_matrix/key/v2/server";

struct Door {
    site: TestSite,
    router: Router,
    b: ServerName,
}

impl Door {
    async fn new() -> Self {
        let site = TestSite::new().await;
        let router = router(site.site.clone(), settings(&site).await);
        Self { site, router, b: name("b.test") }
    }

    async fn call(&self, method: Method, server: &str, target: &str, body: &str) -> (u16, Bytes) {
        let response =
            self.site.run(self.router.clone().oneshot(request(method, server, target, body)));
        let response = response.await.unwrap();
        let status = response.status().as_u16();
        (status, to_bytes(response.into_body(), usize::MAX).await.unwrap())
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let (status, body) = self.call(Method::GET, "b.test", target, "").await;
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn b_answers(&self, reply: Reply) {
        self.site.exchange.answer(&self.b, reply);
    }

    fn asked(&self) -> usize {
        self.site.exchange.seen().len()
    }
}

async fn settings(site: &TestSite) -> OutboundSettings {
    let background = site.background.clone();
    let section = DeliverySection::default();
    let delivery = Delivery::open(site.delivery_parts(&section)).await.unwrap();
    OutboundSettings { secret: SECRET.to_owned(), delivery, background }
}

fn authorization(method: &Method, server: &str, target: &str, body: &str) -> String {
    let own = identity(OWN_NAME);
    let signable = SignableRequest {
        method: method.as_str(),
        target: &target.parse().unwrap(),
        origin: &own.server_name,
        destination: Some(&name(server)),
        content: (!body.is_empty()).then_some(body.as_bytes()),
    };
    signable.sign(&own.key).to_string()
}

fn request(method: Method, server: &str, target: &str, body: &str) -> Request {
    let authorization = authorization(&method, server, target, body);
    http::Request::builder()
        .method(method)
        .uri(format!("matrix-federation://{server}{target}"))
        .header("authorization", authorization)
        .header("proxy-authorization", format!("Bearer {SECRET}"))
        .header("host", "b.test:80")
        .header("connection", "close")
        .header("user-agent", "Synapse")
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap()
}

fn document(server: &str, valid_for: Duration, site: &TestSite) -> KeyDocument {
    mint(&name(server), &identity(server).key, None, site.clock.now().after(valid_for))
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn a_call_passes_through_with_its_target_byte_for_byte_and_without_the_secret() {
    let door = Door::new().await;
    door.b_answers(Reply::Page(200, "multipart/mixed", Bytes::from_static(b"media")));
    let target = "/_matrix/federation/v1/media/download/a%2Fb//..;x?y=%20&z";
    let (status, body) = door.call(Method::POST, "b.test", target, "{\"a\":1}").await;
    assert_eq!((status, body.as_ref()), (200, b"media".as_slice()));

    let seen = door.site.exchange.seen();
    assert_eq!((seen[0].method.clone(), seen[0].target.as_str()), (Method::POST, target));
    assert_eq!(seen[0].body, "{\"a\":1}");
    let mut headers: Vec<&str> = seen[0].headers.keys().map(|name| name.as_str()).collect();
    headers.sort_unstable();
    assert_eq!(headers, ["authorization", "user-agent"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_secret_reaches_nobody() {
    let door = Door::new().await;
    door.b_answers(Reply::Json(200, "{}"));
    let mut wrong = request(Method::GET, "b.test", KEYS_QUERY, "");
    wrong.headers_mut().insert("proxy-authorization", "Bearer wrong".parse().unwrap());
    let response = door.router.clone().oneshot(wrong).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(door.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_to_an_offline_server_are_answered_in_its_place_and_soon_not_even_tried() {
    let door = Door::new().await;
    door.b_answers(Reply::Refused);
    for asked in [1, 2, 2] {
        let (status, body) = door.call(Method::POST, "b.test", KEYS_QUERY, "{}").await;
        assert_eq!((status, door.asked()), (403, asked));
        assert!(String::from_utf8_lossy(&body).contains("b.test is offline"));
    }
    let target = "/_matrix/federation/v1/make_join/!r:b.test/@u:a.test";
    assert_eq!(door.get(target).await.0, 404);
    let target = "/_matrix/federation/v1/get_missing_events/!r:b.test";
    let missing = door.call(Method::POST, "b.test", target, "{}").await;
    assert_eq!(missing, (200, Bytes::from_static(br#"{"events":[]}"#)));

    door.b_answers(Reply::Json(200, "{}"));
    door.site.clock.advance(Duration::from_secs(30));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 200);
    assert_eq!(door.site.destinations.state(&door.b), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_given_up_before_the_homeserver_does() {
    for hang in [Reply::HangsAtConnect, Reply::HangsAtAnswer] {
        let door = Door::new().await;
        door.b_answers(hang);
        let begun = tokio::time::Instant::now();
        assert_eq!(door.get(KEYS_QUERY).await.0, 403);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(door.site.destinations.state(&door.b).unwrap().failures, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateways_error_means_offline_and_a_homeservers_own_goes_back() {
    let door = Door::new().await;
    door.b_answers(Reply::Json(503, r#"{"errcode":"M_UNKNOWN","error":"busy"}"#));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 503);
    assert_eq!(door.site.destinations.state(&door.b), None);
    door.b_answers(Reply::Page(404, "text/html", Bytes::from_static(b"parked")));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 404);
    assert_eq!(door.site.destinations.state(&door.b), None);

    door.b_answers(Reply::Page(502, "text/html", Bytes::from_static(b"<html>Bad Gateway")));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 403);
    assert_eq!(door.site.destinations.state(&door.b).unwrap().failures, 1);
    // A node says so of the homeserver behind it.
    door.b_answers(Reply::Json(502, r#"{"errcode":"M_UNKNOWN","error":"no"}"#));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 403);
    assert_eq!(door.site.destinations.state(&door.b).unwrap().failures, 2);

    door.site.clock.advance(Duration::from_secs(30));
    door.b_answers(Reply::Json(404, r#"{"errcode":"M_NOT_FOUND","error":"no"}"#));
    assert_eq!(door.get("/_matrix/federation/v1/query/profile").await.0, 404);
    assert_eq!(door.site.destinations.state(&door.b), None);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_goes_through_delivery() {
    let door = Door::new().await;
    let relay = name("r.test");
    door.site.relays.add(door.b.clone(), relay.clone().into()).await.unwrap();
    door.site.exchange.answer(&relay, Reply::Json(200, "{}"));
    let content = r#"{"edus":[],"origin":"a.test","pdus":[]}"#;
    let target = "/_matrix/federation/v1/send/17";
    assert_eq!(door.call(Method::PUT, "b.test", target, content).await.0, 200);
    assert_eq!(door.site.exchange.seen_by(&relay).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_no_transaction_is_left_to_the_destination() {
    let door = Door::new().await;
    door.b_answers(Reply::Json(400, r#"{"errcode":"M_NOT_JSON","error":"no"}"#));
    let target = "/_matrix/federation/v1/send/17";
    assert_eq!(door.call(Method::PUT, "b.test", target, "[1]").await.0, 400);
    assert_eq!(door.site.exchange.seen()[0].body, "[1]");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused() {
    let door = Door::new().await;
    let body = " ".repeat(BODY_BYTES_MAX + 1);
    let target = "/_matrix/federation/v1/send/17";
    assert_eq!(door.call(Method::PUT, "b.test", target, &body).await.0, 413);
    assert_eq!(door.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_server_that_answers_are_its_own_answer_and_are_learned() {
    let door = Door::new().await;
    let shown = document("b.test", DAY, &door.site);
    let reply = Reply::Page(200, "application/json", shown.raw().clone());
    door.b_answers(reply);
    let (status, body) = door.call(Method::GET, "b.test", KEYS_OF_SERVER, "").await;
    assert_eq!((status, &body), (200, shown.raw()));
    door.site.run(door.site.background.stop(Duration::from_secs(60))).await;
    assert_eq!(door.site.keys.believed(&door.b).await.unwrap().document, shown);
}

#[tokio::test(start_paused = true)]
async fn keys_of_an_offline_server_are_the_believed_ones_and_else_404() {
    let door = Door::new().await;
    assert_eq!(door.get(KEYS_OF_SERVER).await.0, 404);
    let believed = document("b.test", 30 * DAY, &door.site);
    door.site.keys.trust(&believed).await.unwrap();
    let (status, body) = door.call(Method::GET, "b.test", KEYS_OF_SERVER, "").await;
    assert_eq!((status, &body), (200, believed.raw()));
    // Assumed offline by then: nobody is asked.
    let asked = door.asked();
    assert_eq!(door.call(Method::GET, "b.test", KEYS_OF_SERVER, "").await.0, 200);
    assert_eq!(door.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn keys_that_another_server_shows_are_not_passed_on() {
    let door = Door::new().await;
    let foreign = document("c.test", DAY, &door.site);
    door.b_answers(Reply::Page(200, "application/json", foreign.raw().clone()));
    assert_eq!(door.get(KEYS_OF_SERVER).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn two_look_ups_at_once_get_the_answer_to_one_question() {
    let door = Door::new().await;
    let shown = document("b.test", DAY, &door.site);
    let text = String::from_utf8(shown.raw().to_vec()).unwrap();
    let gate = Arc::new(Notify::new());
    door.b_answers(Reply::Gated(gate.clone(), text.leak()));
    let look_up =
        || door.router.clone().oneshot(request(Method::GET, "b.test", KEYS_OF_SERVER, ""));
    let opens = async {
        door.site.exchange.wait_for(1).await;
        // Virtual time passes only when both look-ups wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
        gate.notify_one();
    };
    let (one, other, ()) = door.site.run(async { tokio::join!(look_up(), look_up(), opens) }).await;
    assert_eq!((one.unwrap().status(), other.unwrap().status()), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_of_a_server_that_does_not_answer_serves_all_who_wait_for_it() {
    let door = Door::new().await;
    let gate = Arc::new(Notify::new());
    door.b_answers(Reply::Gated(gate.clone(), "{}"));
    let look_up =
        || door.router.clone().oneshot(request(Method::GET, "b.test", KEYS_OF_SERVER, ""));
    let opens = async {
        door.site.exchange.wait_for(1).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let asked = door.asked();
        gate.notify_one();
        asked
    };
    let (one, other, asked) =
        door.site.run(async { tokio::join!(look_up(), look_up(), opens) }).await;
    assert_eq!(asked, 1);
    assert_eq!((one.unwrap().status().as_u16(), other.unwrap().status().as_u16()), (404, 404));
}

#[tokio::test(start_paused = true)]
async fn asked_as_a_notary_the_node_countersigns_what_it_believes() {
    let door = Door::new().await;
    let believed = document("b.test", 30 * DAY, &door.site);
    door.site.keys.trust(&believed).await.unwrap();
    let query = r#"{"server_keys":{"b.test":{}}}"#;
    let (status, body) = door.call(Method::POST, OWN_NAME, "/_matrix/key/v2/query", query).await;
    assert_eq!(status, 200);
    let answer = NotaryResponse::parse(&body).unwrap();
    let own = identity(OWN_NAME);
    let key = own.key.public_key();
    assert!(answer.server_keys[0].is_signed_by(&own.server_name, own.key.id(), &key));

    let (status, _) = door.call(Method::GET, OWN_NAME, "/_matrix/federation/v1/version", "").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn synapses_request_line_is_understood_over_a_real_connection() {
    let site = TestSite::new().await;
    site.exchange.answer(&name("b.test"), Reply::Json(200, r#"{"ok":true}"#));
    let settings = settings(&site).await;
    let listener =
        restante_federation::Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.local_address();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = restante_federation::serve(
        listener,
        router(site.site.clone(), settings),
        restante_federation::ServeLimits::default(),
        shutdown.clone(),
    );
    let serving = tokio::spawn(serving);

    let target = "/_matrix/federation/v1/query/profile?user_id=%40u%3Ab.test";
    let authorization = authorization(&Method::GET, "b.test", target, "");
    let head = format!(
        "GET matrix-federation://b.test{target} HTTP/1.1\r\nHost: b.test:80\r\nConnection: close\r\n\
         Proxy-Authorization: Bearer {SECRET}\r\n{AUTHORIZATION}: {authorization}\r\n\r\n"
    );
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"ok":true}"#), "{answer}");
    assert_eq!(site.exchange.targets_of(&name("b.test")), [target]);

    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_that_are_held_are_given_in_the_place_of_an_offline_server_whatever_limit_is_asked()
{
    let door = Door::new().await;
    door.b_answers(Reply::Refused);
    let held = |id: u32| HeldEvent {
        room_id: "!r:b.test".to_owned(),
        event_id: format!("${id}"),
        prev_events: vec![format!("${}", id - 1)],
        pdu: Bytes::from(format!(r#"{{"n":{id}}}"#)),
        source: HeldSource::Capsule,
        is_proven: true,
    };
    door.site.stand_in.note((2..=13).map(held).collect()).await.unwrap();
    let target = "/_matrix/federation/v1/get_missing_events/%21r%3Ab.test";
    let question = r#"{"earliest_events":["$1"],"latest_events":["$13"],"limit":10}"#;
    let (status, body) = door.call(Method::POST, "b.test", target, question).await;
    let gap: Vec<String> = (2..13).map(|id| format!(r#"{{"n":{id}}}"#)).collect();
    let expected = format!(r#"{{"events":[{}]}}"#, gap.join(","));
    assert_eq!((status, String::from_utf8_lossy(&body).into_owned()), (200, expected));

    let (status, body) = door.get("/_matrix/federation/v1/event/%245").await;
    assert_eq!((status, body.contains(r#""pdus":[{"n":5}]"#)), (200, true), "{body}");
    assert_eq!(door.get("/_matrix/federation/v1/event/%2499").await.0, 403);
    let unknown = r#"{"earliest_events":["$1"],"latest_events":["$99"]}"#;
    for question in [unknown, "{}", "nonsense"] {
        let (status, body) = door.call(Method::POST, "b.test", target, question).await;
        assert_eq!((status, body.as_ref()), (200, br#"{"events":[]}"#.as_slice()), "{question}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_is_asked_for_missing_events_itself() {
    let door = Door::new().await;
    door.b_answers(Reply::Json(200, r#"{"events":[{"own":1}]}"#));
    let target = "/_matrix/federation/v1/get_missing_events/!r";
    let question = r#"{"earliest_events":[],"latest_events":["$1"]}"#;
    let (_, body) = door.call(Method::POST, "b.test", target, question).await;
    assert_eq!(body.as_ref(), br#"{"events":[{"own":1}]}"#.as_slice());
    assert_eq!(door.site.exchange.seen()[0].body, question);
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_at_this_moment_is_asked_what_is_missing_though_it_is_assumed_offline() {
    let door = Door::new().await;
    let question = r#"{"earliest_events":[],"latest_events":["$e"],"limit":10,"min_depth":0}"#;
    let ask = async || {
        let target = "/_matrix/federation/v1/get_missing_events/%21r";
        door.call(Method::POST, "b.test", target, question).await.1
    };
    door.site.destinations.failed(&door.b).await;
    door.site.destinations.failed(&door.b).await;
    door.site.exchange.answer(&door.b, Reply::Json(200, r#"{"events":[{"from":"b"}]}"#));
    assert_eq!(ask().await, r#"{"events":[]}"#);

    door.site.destinations.sign_of_life(&door.b);
    assert_eq!(ask().await, r#"{"events":[{"from":"b"}]}"#);
}
