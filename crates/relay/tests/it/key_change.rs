//! A server whose keys change while the relay can't ask it, or has asked it just before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use restante_federation::Identity;
use restante_federation_proto::{
    Clock, KeyDocument, ServerName, SigningKey, SystemClock, mint_signed_by,
};
use restante_relay_api::{Content, Extras, RegistrationRequest};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{TestRelay, TestServer, collect_all, texts};

/// A named server with a key that the relay has seen, and one that it has not.
struct Named {
    relay: TestRelay,
    first: TestServer,
    second: TestServer,
    /// Serves the first key alone.
    key_server: JoinHandle<()>,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.key_server.abort();
    }
}

impl Named {
    async fn start() -> Self {
        let name: ServerName = "a.example".parse().unwrap();
        let with_key = |version: &str, seed: u8| {
            let key = SigningKey::from_seed(version.parse().unwrap(), &[seed; 32]);
            TestServer { identity: Identity { server_name: name.clone(), key: Arc::new(key) } }
        };
        let (first, second) = (with_key("ed25519:1", 1), with_key("ed25519:2", 2));
        let served = document(&[&first]).raw().clone();
        let (address, key_server) = serve_keys(served).await;
        let routes = format!("[federation.routes]\n\"a.example\" = \"http://{address}\"");
        let relay = TestRelay::start_with(&routes).await;
        Self { relay, first, second, key_server }
    }
}

/// A server that says nothing but which keys it has.
pub(crate) async fn serve_keys(document: Bytes) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = get(move || std::future::ready(document.clone()));
    let router = Router::new().route("/_matrix/key/v2/server", answer);
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// The document of that server, signed by each of the keys that it lists.
fn document(servers: &[&TestServer]) -> KeyDocument {
    let keys: Vec<&SigningKey> = servers.iter().map(|server| &*server.identity.key).collect();
    let until = SystemClock.now().after(Duration::from_hours(24));
    mint_signed_by(servers[0].name(), &keys, [].into(), until)
}

/// A deposit by `sender`, with `keys` as its key document.
fn deposit(relay: &TestRelay, sender: &TestServer, to: &TestServer, keys: &KeyDocument) -> String {
    let content = Content::parse(Bytes::from(sender.transaction(relay, "m"))).unwrap();
    let minted = sender.extras(relay, to.name(), "t", &content);
    let json = String::from_utf8(minted.json.to_vec()).unwrap();
    let own = String::from_utf8(minted.keys.clone().unwrap().to_vec()).unwrap();
    let brought = std::str::from_utf8(keys.raw()).unwrap();
    let extras = Extras { json: json.replace(&own, brought).into(), ..minted };
    String::from_utf8(content.to_deposit_body(&extras).unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn mail_under_a_new_key_is_taken_at_once_if_it_brings_a_document_that_the_old_key_signed() {
    let named = Named::start().await;
    let (relay, b) = (&named.relay, TestServer::new(3));
    named.first.leave(relay, &b, "t0", &named.first.transaction(relay, "before")).await.assert_ok();
    let both = document(&[&named.first, &named.second]);
    let body = deposit(relay, &named.second, &b, &both);
    named.second.leave(relay, &b, "t", &body).await.assert_ok();
    assert_eq!(texts(&b.collect(relay, &collect_all(relay)).await), ["before", "m"]);
}

#[tokio::test]
async fn a_document_that_only_the_new_key_signed_begins_nothing() {
    let named = Named::start().await;
    let (relay, b) = (&named.relay, TestServer::new(3));
    let alone = document(&[&named.second]);
    let body = deposit(relay, &named.second, &b, &alone);
    // Nobody has asked before: the server itself says that it has no such key.
    named.second.leave(relay, &b, "t", &body).await.assert_refused(401, "M_UNAUTHORIZED");
    // From then on the relay remembers the answer, which may be out of date: it does not refuse for good.
    named.second.leave(relay, &b, "t", &body).await.assert_refused(503, "M_UNKNOWN");
    assert!(b.collect(relay, &collect_all(relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn a_registration_under_a_known_key_makes_the_next_key_known_by_the_document_that_it_brings()
{
    let named = Named::start().await;
    let (relay, b) = (&named.relay, TestServer::new(3));
    let both = document(&[&named.first, &named.second]);
    let keys = serde_json::from_slice(both.raw()).unwrap();
    let request = RegistrationRequest { keys: Some(keys), ..named.first.registration(relay) };
    named.first.register(relay, &request).await.assert_ok();
    let body = deposit(relay, &named.second, &b, &document(&[&named.second]));
    named.second.leave(relay, &b, "t", &body).await.assert_ok();
}

#[tokio::test]
async fn mail_under_a_known_key_makes_the_next_key_known_by_the_document_that_it_brings() {
    let named = Named::start().await;
    let (relay, b) = (&named.relay, TestServer::new(3));
    let both = document(&[&named.first, &named.second]);
    let body = deposit(relay, &named.first, &b, &both);
    named.first.leave(relay, &b, "t", &body).await.assert_ok();
    let body = deposit(relay, &named.second, &b, &document(&[&named.second]));
    named.second.leave(relay, &b, "t", &body).await.assert_ok();
}
