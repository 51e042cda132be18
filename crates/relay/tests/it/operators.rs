//! The operators' door of a relay, over real HTTP.

mod custody;
mod invites;
mod monitors;
mod reload;
mod transfer;

use http::Method;
use restante_relay::{Relay, RelayConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::{TestRelay, TestServer, collect_all, texts};

const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// A relay that holds two letters of one server and one of another, all for the last.
async fn relay_with_mail() -> (TestRelay, [TestServer; 3]) {
    let relay = TestRelay::start().await;
    let servers = [TestServer::new(1), TestServer::new(2), TestServer::new(3)];
    let [a, b, c] = &servers;
    for (from, id, text) in [(a, "1", "one"), (a, "2", "two"), (b, "1", "three")] {
        from.leave(&relay, c, id, &from.transaction(&relay, text)).await.assert_ok();
    }
    (relay, servers)
}

/// What `server` finds in its mailbox.
async fn found(relay: &TestRelay, server: &TestServer) -> Vec<String> {
    texts(&server.collect(relay, &collect_all(relay)).await)
}

fn mailbox(server: &TestServer) -> String {
    format!("/mailboxes/{}", server.name())
}

#[tokio::test]
async fn every_command_of_the_document_needs_the_token() {
    let relay = TestRelay::start().await;
    let document = relay.at_operators(GET, "/_restante/admin/v1/openapi.json", "", "").await;
    let paths = document.assert_ok()["paths"].as_object().unwrap().clone();
    let mut commands = 0;
    for (path, item) in &paths {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let method: Method = method.to_uppercase().parse().unwrap();
            let target = path.replace("{server}", "b.example").replace("{id}", "1");
            for token in ["", "Bearer 0"] {
                let answer = relay.at_operators(method.clone(), &target, token, "").await;
                answer.assert_refused(401, "M_UNAUTHORIZED");
            }
            commands += 1;
        }
    }
    assert!(commands >= 14, "{commands}");
    relay.operator(GET, "/nothing", "").await.assert_refused(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn the_public_door_has_nothing_of_the_operators() {
    let relay = TestRelay::start().await;
    for target in ["/health", "/ready", "/metrics", "/_restante/admin/v1/status"] {
        relay.plain(GET, target, "").await.assert_refused(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn the_status_says_what_the_relay_holds() {
    let (relay, _) = relay_with_mail().await;
    relay.clock.advance(std::time::Duration::from_secs(5));
    let status = relay.operator(GET, "/status", "").await.assert_ok();
    assert_eq!(status["server_name"], relay.name().as_str());
    assert_eq!((&status["serve"], &status["uptime_ms"]), (&json!("open"), &json!(5000)));
    assert_eq!(status["totals"]["envelopes"], 3);
    assert_eq!(status["totals"]["mailboxes"], 1);
    assert_eq!((&status["disk"]["low"], &status["ready"]["ready"]), (&json!(false), &json!(true)));
    assert!(status["connections"].as_u64().unwrap() >= 1);
    assert_eq!(status["at_rest"]["keys"], json!([]));
}

async fn refused_start(listen: &str, operators: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("listen = \"{listen}\"\n[operators]\nlisten = \"{operators}\"");
    let mut config: RelayConfig = toml::from_str(&text).unwrap();
    config.data = folder.path().join("data");
    let clock = std::sync::Arc::new(restante_federation_proto::SystemClock);
    match Relay::start(config, clock, CancellationToken::new()).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_start_that_fails_at_the_operators_address_says_what_to_change() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = refused_start("127.0.0.1:0", &address).await;
    assert!(error.contains(&address) && error.contains("[operators] listen"), "{error}");
    let error = refused_start("127.0.0.1:0", "0.0.0.0:0").await;
    assert!(error.contains("not a loopback address"), "{error}");
}

/// A page of a list.
async fn page(relay: &TestRelay, target: &str) -> (Vec<Value>, Option<String>) {
    let page = relay.operator(GET, target, "").await.assert_ok();
    let items = page["items"].as_array().unwrap().clone();
    (items, page["next"].as_str().map(str::to_owned))
}
