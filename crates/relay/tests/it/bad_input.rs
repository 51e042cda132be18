//! What strangers send: the Matrix error that names it, and no change of state.

use http::Method;
use http::header::AUTHORIZATION;
use restante_federation::{empty, full, signed_request};
use restante_relay_api::endpoints::send_relay_target;

use crate::harness::{TestRelay, TestServer, collect_all};

#[tokio::test]
async fn unknown_endpoints_and_methods_get_matrix_errors() {
    let relay = TestRelay::start().await;
    relay.plain(Method::GET, "/", "").await.assert_refused(404, "M_UNRECOGNIZED");
    relay
        .plain(Method::GET, "/_matrix/client/versions", "")
        .await
        .assert_refused(404, "M_UNRECOGNIZED");
    let target = "/_matrix/federation/v1/version";
    relay.plain(Method::POST, target, "{}").await.assert_refused(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn unsigned_and_wrongly_signed_requests_are_401() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let target = send_relay_target("t", b.name());
    let body = a.transaction(&relay, "m");
    relay.plain(Method::PUT, target.as_str(), &body).await.assert_refused(401, "M_UNAUTHORIZED");
    // Signed, and then changed on the way.
    let mut request =
        signed_request(&a.identity, Method::PUT, &target, relay.name(), Some(body.clone().into()));
    *request.body_mut() = full(a.transaction(&relay, "changed"));
    relay.send(request).await.assert_refused(401, "M_UNAUTHORIZED");
    // Signed for another server.
    let request =
        signed_request(&a.identity, Method::PUT, &target, b.name(), Some(body.clone().into()));
    relay.send(request).await.assert_refused(401, "M_UNAUTHORIZED");
    // Another scheme.
    let mut request =
        signed_request(&a.identity, Method::PUT, &target, relay.name(), Some(body.into()));
    request.headers_mut().insert(AUTHORIZATION, "Bearer x".parse().unwrap());
    relay.send(request).await.assert_refused(401, "M_UNAUTHORIZED");
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_transactions_are_400() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let fifty_one = format!(r#"{{"pdus":[{}]}}"#, vec!["{}"; 51].join(","));
    let hundred_and_one = format!(r#"{{"edus":[{}]}}"#, vec!["{}"; 101].join(","));
    for body in [
        r#"{"pdus":{}}"#,
        r#"{"origin":7}"#,
        r#"{"origin_server_ts":"now"}"#,
        &fifty_one,
        &hundred_and_one,
    ] {
        a.leave(&relay, &b, "t", body).await.assert_refused(400, "M_BAD_JSON");
    }
    for body in ["", "[]", "null"] {
        a.leave(&relay, &b, "t", body).await.assert_refused(400, "M_NOT_JSON");
    }
}

#[tokio::test]
async fn malformed_json_is_400() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let target = send_relay_target("t", b.name());
    for body in ["{", "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}", "nonsense"] {
        let mut request = signed_request(&a.identity, Method::PUT, &target, relay.name(), None);
        *request.body_mut() = full(body.to_owned());
        relay.send(request).await.assert_refused(400, "M_NOT_JSON");
    }
}

#[tokio::test]
async fn user_ids_that_are_none_are_400() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    for user_id in ["user", b.name().as_str(), "@user:", "@user:-%20-", "@user:b%00.example"] {
        let target = format!("/_matrix/federation/v1/send_relay/t/{user_id}");
        a.call(&relay, Method::PUT, &target, &body).await.assert_refused(400, "M_INVALID_PARAM");
    }
    let target = "/_matrix/federation/v1/send_relay/t/%ff";
    a.call(&relay, Method::PUT, target, &body).await.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_transaction_id_beyond_reason_is_400() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    a.leave(&relay, &b, &"t".repeat(256), &body).await.assert_refused(400, "M_INVALID_PARAM");
    a.leave(&relay, &b, &"t".repeat(255), &body).await.assert_ok();
}

#[tokio::test]
async fn an_oversize_body_is_refused_before_it_is_read() {
    let relay = TestRelay::start_with("[limits]\nbody_bytes_max = 1000").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, &"x".repeat(1000));
    a.leave(&relay, &b, "t", &body).await.assert_refused(413, "M_TOO_LARGE");
    a.leave(&relay, &b, "t", &a.transaction(&relay, "small")).await.assert_ok();
}

#[tokio::test]
async fn a_destination_may_be_required() {
    let relay = TestRelay::start_with("[federation]\nrequire_destination = true").await;
    let a = TestServer::new(1);
    let target: restante_federation_proto::RequestTarget =
        restante_relay_api::endpoints::COLLECT.parse().unwrap();
    let body = String::from_utf8(collect_all(&relay).to_canonical_json()).unwrap();
    let signable = restante_federation_proto::SignableRequest {
        method: "POST",
        target: &target,
        origin: a.name(),
        destination: None,
        content: Some(body.as_bytes()),
    };
    let header = signable.sign(&a.identity.key);
    let header = format!(
        "X-Matrix origin=\"{}\",key=\"{}\",sig=\"{}\"",
        header.origin,
        header.key_id,
        header.signature.to_base64()
    );
    let send = async |relay: &TestRelay| {
        let request = http::Request::post(target.as_str()).header(AUTHORIZATION, &header);
        relay.send(request.body(full(body.clone())).unwrap()).await
    };
    send(&relay).await.assert_refused(401, "M_UNAUTHORIZED");
    let lenient = TestRelay::start().await;
    send(&lenient).await.assert_ok();
}

#[tokio::test]
async fn mail_for_the_relay_itself_is_refused() {
    let relay = TestRelay::start().await;
    let a = TestServer::new(1);
    let target = send_relay_target("t", relay.name());
    let answer = a.call(&relay, Method::PUT, target.as_str(), &a.transaction(&relay, "m")).await;
    answer.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_request_without_a_body_where_one_is_needed_is_answered() {
    let relay = TestRelay::start().await;
    let a = TestServer::new(1);
    let target = restante_relay_api::endpoints::COLLECT.parse().unwrap();
    let mut request = signed_request(&a.identity, Method::POST, &target, relay.name(), None);
    *request.body_mut() = empty();
    relay.send(request).await.assert_refused(400, "M_BAD_JSON");
}
