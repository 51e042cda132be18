//! Mail on a thin line: compressed where both sides take it, and no weapon.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderValue, Method, Request};
use restante_federation::{Body, ContentCoding, full};
use restante_relay_api::CollectResponse;
use restante_relay_api::endpoints::{COLLECT, send_relay_target};

use crate::harness::{Answer, TestRelay, TestServer, collect_all, texts};

/// A request that says how its content is coded.
fn coded(mut request: Request<Body>, content: Bytes, coding: &'static str) -> Request<Body> {
    *request.body_mut() = full(content);
    request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    request
}

struct Servers {
    relay: TestRelay,
    a: TestServer,
    b: TestServer,
}

impl Servers {
    async fn start() -> Self {
        Self { relay: TestRelay::start().await, a: TestServer::new(1), b: TestServer::new(2) }
    }

    /// A deposit by A of a text that takes thousands of bytes, not yet coded.
    fn deposit(&self, txn_id: &str, text: &str) -> (Request<Body>, Bytes) {
        let Self { relay, a, b } = self;
        let body = a.transaction(relay, text);
        let target = send_relay_target(txn_id, b.name());
        let content =
            restante_federation_proto::canonicalise(body.as_bytes()).unwrap().into_owned();
        (a.request(relay, Method::PUT, target.as_str(), &body), content.into())
    }

    async fn collect(&self, accepts: Option<&'static str>) -> Answer {
        let Self { relay, b, .. } = self;
        let body = String::from_utf8(collect_all(relay).to_canonical_json()).unwrap();
        let mut request = b.request(relay, Method::POST, COLLECT, &body);
        if let Some(accepts) = accepts {
            request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(accepts));
        }
        relay.send(request).await
    }
}

#[tokio::test]
async fn a_compressed_deposit_is_taken_after_the_relay_has_said_that_it_takes_them() {
    let servers = Servers::start().await;
    let (first, second) = ("x".repeat(5000), "y".repeat(5000));
    let (request, _) = servers.deposit("1", &first);
    let answer = servers.relay.send(request).await;
    answer.assert_ok();
    assert_eq!(ContentCoding::wanted(&answer.headers), ContentCoding::Zstd);
    let (request, content) = servers.deposit("2", &second);
    let (short, _) = ContentCoding::Zstd.encode(content.clone());
    assert!(short.len() < content.len() / 10);
    servers.relay.send(coded(request, short, "zstd")).await.assert_ok();
    let collected = CollectResponse::parse(&servers.collect(None).await.body).unwrap();
    assert_eq!(texts(&collected), [first, second]);
}

#[tokio::test]
async fn an_answer_is_compressed_for_those_who_take_it_alone() {
    let servers = Servers::start().await;
    let text = "x".repeat(5000);
    servers.relay.send(servers.deposit("1", &text).0).await.assert_ok();
    let plain = servers.collect(Some("gzip")).await;
    assert_eq!(plain.headers.get(CONTENT_ENCODING), None);
    let coded = servers.collect(Some("zstd")).await;
    assert_eq!(coded.headers[CONTENT_ENCODING], "zstd");
    assert!(coded.body.len() < plain.body.len() / 2);
    let read = ContentCoding::Zstd.decode(coded.body, 1 << 20, |_| Ok(())).unwrap();
    assert_eq!(texts(&CollectResponse::parse(&read).unwrap()), [text]);
}

#[tokio::test]
async fn mail_of_one_letter_is_handed_out_whatever_it_would_be_compressed_to() {
    let servers = Servers::start().await;
    let text = "x".repeat(6 << 20);
    servers.relay.send(servers.deposit("1", &text).0).await.assert_ok();
    let answer = servers.collect(Some("zstd")).await;
    let coding = ContentCoding::of(&answer.headers).unwrap();
    let read = coding.decode(answer.body, 8 << 20, |_| Ok(())).unwrap();
    assert_eq!(texts(&CollectResponse::parse(&read).unwrap()), [text]);
}

#[tokio::test]
async fn nobody_without_a_signature_has_a_body_read() {
    let servers = Servers::start().await;
    let (mut request, _) = servers.deposit("1", "x");
    request.headers_mut().remove(AUTHORIZATION);
    let broken = coded(request, Bytes::from_static(b"no frame"), "zstd");
    servers.relay.send(broken).await.assert_refused(401, "M_UNAUTHORIZED");
}

#[tokio::test]
async fn what_is_no_such_coding_or_becomes_too_long_is_refused_and_not_kept() {
    let servers = Servers::start().await;
    let (frame, coding) = ContentCoding::Zstd.encode(vec![b'0'; 64 << 10].into());
    assert!(coding.is_some() && frame.len() < 100);
    for (content, coding, status, errcode) in [
        (Bytes::from_static(b"{}"), "gzip", 415, "M_INVALID_PARAM"),
        (Bytes::from_static(b"{}"), "zstd", 400, "M_NOT_JSON"),
        (frame.repeat(1024).into(), "zstd", 400, "M_NOT_JSON"),
    ] {
        let (request, _) = servers.deposit("1", "x");
        servers.relay.send(coded(request, content, coding)).await.assert_refused(status, errcode);
    }
    let collected = CollectResponse::parse(&servers.collect(None).await.body).unwrap();
    assert!(collected.envelopes.is_empty());
}
