//! Who sent a request, and what everybody else gets.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use restante_federation::{
    Body, Exchange, ExchangeError, Identity, KeyRing, KeyRingParts, MemoryKeyStore, Patience, Peer,
    Stage, authenticate, collect_limited, signed_request, x_matrix_headers,
};
use restante_federation_proto::{
    ErrorCode, ManualClock, MatrixError, ServerName, SignableRequest, SigningKey, Timestamp,
};

struct Nobody;

#[async_trait]
impl Exchange for Nobody {
    async fn exchange(
        &self,
        peer: &Peer,
        _request: Request<Body>,
        _patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        Err(ExchangeError::Timeout { server: peer.name.clone(), stage: Stage::Connect })
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("ed25519:1".parse().unwrap(), &[seed; 32])
}

/// A server that is named by its key, so that nobody needs to be asked for it.
fn origin() -> Identity {
    let key = key(1);
    Identity { server_name: ServerName::of_key(&key.public_key()), key: Arc::new(key) }
}

fn own_name() -> ServerName {
    "own.example".parse().unwrap()
}

fn ring() -> KeyRing {
    KeyRing::new(KeyRingParts {
        identity: Identity { server_name: own_name(), key: Arc::new(key(99)) },
        exchange: Arc::new(Nobody),
        store: Arc::new(MemoryKeyStore::default()),
        clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000))),
        notaries: Vec::new(),
        vouchers: Vec::new(),
    })
}

async fn signed_by(identity: &Identity, body: Option<&'static str>) -> (Parts, Bytes) {
    let target = "/_matrix/federation/v1/send/a%2Fb//?".parse().unwrap();
    let content = body.map(|body| Bytes::from_static(body.as_bytes()));
    let request = signed_request(identity, Method::PUT, &target, &own_name(), content);
    let (parts, body) = request.into_parts();
    (parts, collect_limited(body, 1000).await.unwrap())
}

async fn refusal(parts: &Parts, body: &'static str) -> MatrixError {
    authenticate(parts, Bytes::from_static(body.as_bytes()), &own_name(), &ring())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_signed_request_names_its_origin() {
    for content in [None, Some(r#"{"pdus":[]}"#)] {
        let (parts, body) = signed_by(&origin(), content).await;
        let known = authenticate(&parts, body.clone(), &own_name(), &ring()).await.unwrap();
        assert_eq!(*known.origin.server_name(), origin().server_name);
        assert!(known.destination_named);
        assert_eq!(known.body, body);
    }
}

#[tokio::test]
async fn the_body_may_be_written_in_another_form() {
    let (parts, _) = signed_by(&origin(), Some(r#"{"a":1,"b":2}"#)).await;
    let body = Bytes::from_static(b"{ \"b\": 2, \"a\": 1 }");
    authenticate(&parts, body, &own_name(), &ring()).await.unwrap();
}

#[tokio::test]
async fn a_destination_may_be_left_out_and_is_then_reported() {
    let origin = origin();
    let target = "/x".parse().unwrap();
    let signable = SignableRequest {
        method: "GET",
        target: &target,
        origin: &origin.server_name,
        destination: None,
        content: None,
    };
    let header = signable.sign(&origin.key).to_string();
    let request = Request::get("/x").header(header::AUTHORIZATION, header).body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let known = authenticate(&parts, Bytes::new(), &own_name(), &ring()).await.unwrap();
    assert!(!known.destination_named);
}

#[tokio::test]
async fn anything_changed_on_the_way_is_unauthorized() {
    let (parts, _) = signed_by(&origin(), Some(r#"{"a":1}"#)).await;
    let mut other_target = parts.clone();
    other_target.uri = "/_matrix/federation/v1/send/a%2fb//?".parse().unwrap();
    let mut other_method = parts.clone();
    other_method.method = Method::POST;
    for (parts, body) in [
        (&parts, r#"{"a":2}"#),
        (&parts, ""),
        (&other_target, r#"{"a":1}"#),
        (&other_method, r#"{"a":1}"#),
    ] {
        let refusal = refusal(parts, body).await;
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
        assert_eq!(refusal.code, ErrorCode::Unauthorized);
    }
}

#[tokio::test]
async fn a_request_for_somebody_else_is_unauthorized() {
    let (parts, body) = signed_by(&origin(), None).await;
    let other = "other.example".parse().unwrap();
    let refusal = authenticate(&parts, body, &other, &ring()).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn targets_and_bodies_that_cannot_be_signed_are_bad_requests() {
    let (mut parts, _) = signed_by(&origin(), None).await;
    let not_json = refusal(&parts, "{").await;
    assert_eq!((not_json.status, not_json.code), (StatusCode::BAD_REQUEST, ErrorCode::NotJson));
    parts.uri = "/a\"b".parse().unwrap();
    assert_eq!(refusal(&parts, "").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_key_that_cannot_be_had_now_is_asked_for_later() {
    let stranger = Identity { server_name: "a.example".parse().unwrap(), key: Arc::new(key(2)) };
    let (parts, _) = signed_by(&stranger, None).await;
    let refusal = refusal(&parts, "").await;
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refusal.retry_after.is_some());
}

#[tokio::test]
async fn one_good_signature_among_several_is_enough() {
    let wrong = Identity { key: Arc::new(key(3)), ..origin() };
    let (mut parts, _) = signed_by(&wrong, None).await;
    assert_eq!(refusal(&parts, "").await.status, StatusCode::UNAUTHORIZED);
    let (good, body) = signed_by(&origin(), None).await;
    parts.headers.append(header::AUTHORIZATION, good.headers[header::AUTHORIZATION].clone());
    let other_scheme = "Bearer secret".parse().unwrap();
    parts.headers.append(header::AUTHORIZATION, other_scheme);
    authenticate(&parts, body, &own_name(), &ring()).await.unwrap();
}

#[tokio::test]
async fn headers_that_disagree_or_are_missing_or_malformed_are_unauthorized() {
    let (mine, _) = signed_by(&origin(), None).await;
    let stranger = Identity { server_name: "a.example".parse().unwrap(), key: Arc::new(key(2)) };
    let (theirs, _) = signed_by(&stranger, None).await;
    let mut both = mine.headers.clone();
    both.append(header::AUTHORIZATION, theirs.headers[header::AUTHORIZATION].clone());
    let mut malformed = mine.headers.clone();
    malformed.append(header::AUTHORIZATION, "X-Matrix nonsense".parse().unwrap());
    let mut many = http::HeaderMap::new();
    for _ in 0..9 {
        many.append(header::AUTHORIZATION, mine.headers[header::AUTHORIZATION].clone());
    }
    for headers in [both, malformed, many, http::HeaderMap::new()] {
        assert_eq!(x_matrix_headers(&headers).unwrap_err().status, StatusCode::UNAUTHORIZED);
    }
}
