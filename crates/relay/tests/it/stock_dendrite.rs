//! Requests as gomatrixserverlib makes them, from the shared vectors: signed elsewhere, byte for byte.

use std::sync::Arc;

use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use restante_federation::full;
use serde_json::Value;

use crate::harness::TestRelay;

const VECTORS: &str = include_str!("../../../federation-proto/tests/vectors/x-matrix.json");

#[tokio::test]
async fn a_request_signed_for_another_relay_is_401_in_every_form() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let relay = Arc::new(TestRelay::start().await);
    let mut judged = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap_or_default();
        if !text("uri").contains("relay") {
            continue;
        }
        judged += 1;
        let request = Request::builder()
            .method(text("method"))
            .uri(text("uri"))
            .header(AUTHORIZATION, text("authorization"))
            .header(CONTENT_TYPE, "application/json")
            .body(full(text("body_as_sent_by_gomatrixserverlib").to_owned()))
            .unwrap();
        let answer = relay.send(request).await;
        // Each is signed for another relay: what is wrong is the destination, not the form.
        answer.assert_refused(401, "M_UNAUTHORIZED");
    }
    assert!(judged >= 5, "the vectors hold requests to relays");
}
