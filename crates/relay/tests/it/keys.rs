//! The relay's keys, and its name and version.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use restante_federation::{empty, full};
use restante_federation_proto::{Clock, KeyDocument, NotaryResponse, SystemClock, mint};
use serde_json::{Value, json};

use crate::harness::{TestRelay, TestServer};
use crate::key_change::serve_keys;

#[tokio::test]
async fn the_relay_serves_its_own_key_document() {
    let relay = TestRelay::start().await;
    let answer = relay.plain(Method::GET, "/_matrix/key/v2/server", "").await;
    answer.assert_ok();
    let document = KeyDocument::parse(answer.body).unwrap();
    assert_eq!(document.server_name(), relay.name());
    assert!(document.valid_until() > relay.clock.now());
    let key = document.verify_keys().values().next().unwrap();
    assert_eq!(relay.name().public_key().as_ref(), Some(key), "it is named by its key");
}

#[tokio::test]
async fn a_notary_query_for_servers_it_cannot_vouch_for_is_empty() {
    let relay = TestRelay::start().await;
    let query = json!({ "server_keys": { "unknown.example": {} } }).to_string();
    let answer = relay.plain(Method::POST, "/_matrix/key/v2/query", &query).await;
    answer.assert_ok();
    assert!(NotaryResponse::parse(&answer.body).unwrap().server_keys.is_empty());
    let answer = relay.plain(Method::GET, "/_matrix/key/v2/query/unknown.example", "").await;
    assert_eq!(answer.assert_ok(), json!({ "server_keys": [] }));
    let refused = relay.plain(Method::POST, "/_matrix/key/v2/query", "{}").await;
    refused.assert_refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn unsigned_questions_for_names_that_nobody_knows_are_bounded_by_address() {
    let named = TestServer::named("a.example", 1);
    let tomorrow = SystemClock.now().after(Duration::from_hours(24));
    let document = mint(named.name(), &named.identity.key, None, tomorrow);
    let (address, key_server) = serve_keys(document.raw().clone()).await;
    let relay = TestRelay::start_with(&format!(
        "[limits]\nnewcomers_per_address_per_minute = 2\n\
         [federation.routes]\n\"a.example\" = \"http://{address}\""
    ))
    .await;
    let ask = |servers: &[&str]| {
        let asked: Value = servers.iter().map(|server| ((*server).to_owned(), json!({}))).collect();
        let body = json!({ "server_keys": asked }).to_string();
        Request::post("/_matrix/key/v2/query").body(full(body)).unwrap()
    };
    let ask_one = || Request::get("/_matrix/key/v2/query/a.example").body(empty()).unwrap();
    let flood = ask(&["1.example", "2.example", "a.example"]);
    let nothing = json!({ "server_keys": [] });
    assert_eq!(relay.send_from("203.0.113.9", flood).await.assert_ok(), nothing);
    assert_eq!(relay.send_from("203.0.113.9", ask_one()).await.assert_ok(), nothing);

    let found = relay.send_from("203.0.113.10", ask(&["a.example"])).await.assert_ok();
    assert_eq!(found["server_keys"][0]["server_name"], "a.example");
    let known = relay.send_from("203.0.113.9", ask_one()).await.assert_ok();
    assert_eq!(known["server_keys"].as_array().unwrap().len(), 1, "what is known costs no look-up");
    key_server.abort();
}

#[tokio::test]
async fn a_self_signed_document_that_comes_with_mail_is_not_served() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut stranger = TestServer::new(5);
    stranger.identity.server_name = "victim.example".parse().unwrap();
    let content =
        restante_relay_api::Content::parse(Bytes::from(a.transaction(&relay, "m"))).unwrap();
    let mut extras = a.extras(&relay, b.name(), "t", &content);
    let forged = stranger.extras(&relay, b.name(), "t", &content);
    let (own, forged) = (extras.keys.clone().unwrap(), forged.keys.unwrap());
    let text = String::from_utf8(extras.json.to_vec()).unwrap();
    let (own, forged) = (std::str::from_utf8(&own).unwrap(), std::str::from_utf8(&forged).unwrap());
    extras.json = Bytes::from(text.replace(own, forged));
    let body = content.to_deposit_body(&extras).unwrap();
    a.leave(&relay, &b, "t", std::str::from_utf8(&body).unwrap()).await.assert_ok();
    let answer = relay.plain(Method::GET, "/_matrix/key/v2/query/victim.example", "").await;
    assert_eq!(answer.assert_ok(), json!({ "server_keys": [] }));
}

#[tokio::test]
async fn name_and_version_are_told() {
    let relay = TestRelay::start().await;
    let answer = relay.plain(Method::GET, "/_matrix/federation/v1/version", "").await.assert_ok();
    assert_eq!(answer["server"]["name"], "Restante");
}
