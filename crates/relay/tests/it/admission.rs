//! Mail that is not taken: the same answer after the same work, whatever the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use restante_federation_proto::{Clock, SystemClock, mint};
use restante_mailbox::{Invite, InviteHash, MemoryStore, Registry};
use restante_relay::Stores;
use restante_relay_api::{Content, LeftMail, RegistrationRequest};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{Answer, TestRelay, TestServer};

/// Servers that are not named by their keys, whose keys the relay has to ask for; and how often it does.
struct Named {
    servers: Vec<TestServer>,
    routes: String,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Named {
    async fn start(count: u8) -> Self {
        let mut named = Self {
            servers: Vec::new(),
            routes: "[federation.routes]\n".into(),
            asked: Arc::default(),
            _serving: JoinSet::new(),
        };
        for number in 0..count {
            let server = TestServer::named(&format!("s{number}.example"), 100 + number);
            let until = SystemClock.now().after(Duration::from_hours(24));
            let document = mint(server.name(), &server.identity.key, None, until).raw().clone();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            named.routes += &format!("\"{}\" = \"http://{address}\"\n", server.name());
            let asked = named.asked.clone();
            let answer = get(move || {
                asked.fetch_add(1, Ordering::SeqCst);
                std::future::ready(document.clone())
            });
            let router = Router::new().route("/_matrix/key/v2/server", answer);
            named._serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
            named.servers.push(server);
        }
        named
    }

    /// How often any of them was asked for its keys while `work` was done.
    async fn look_ups<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        let before = self.asked.load(Ordering::SeqCst);
        let done = work.await;
        (self.asked.load(Ordering::SeqCst) - before, done)
    }
}

/// Mail of `origin` with its proof, brought by `carrier`.
async fn bring(
    relay: &TestRelay,
    carrier: &TestServer,
    origin: &TestServer,
    to: &TestServer,
) -> Answer {
    carrier.leave(relay, to, "t", &proven(relay, origin, to)).await
}

fn proven(relay: &TestRelay, origin: &TestServer, to: &TestServer) -> String {
    let content = Content::parse(Bytes::from(origin.transaction(relay, "m"))).unwrap();
    let extras = origin.extras(relay, to.name(), "t", &content);
    String::from_utf8(content.to_deposit_body(&extras).unwrap().to_vec()).unwrap()
}

/// A relay for invited servers; one that it never heard of, one that has left, one that wants no mail, and one that does.
struct Owners {
    relay: TestRelay,
    unknown: TestServer,
    closed: TestServer,
    forbidden: TestServer,
    open: TestServer,
}

impl Owners {
    async fn start(routes: &str) -> Self {
        let store = Arc::new(MemoryStore::new());
        let config = format!("serve = \"invited\"\n{routes}");
        let relay = TestRelay::start_on(Stores::of(store.clone()), &config).await;
        let [unknown, closed, forbidden, open] = [1, 2, 3, 4].map(TestServer::new);
        for server in [&closed, &forbidden, &open] {
            let token = server.name().as_str();
            let now = relay.clock.now();
            let invite = Invite {
                hash: InviteHash::of(token.as_bytes()),
                server: None,
                note: String::new(),
                created_at: now,
                expires_at: now.after(Duration::from_hours(1)),
            };
            store.invite(invite).await.unwrap();
            let mut request = RegistrationRequest {
                invite: Some(token.to_owned()),
                ..server.registration(&relay)
            };
            if server.name() == forbidden.name() {
                request.senders.block = vec!["s*.example".parse().unwrap()];
            }
            server.register(&relay, &request).await.assert_ok();
        }
        relay.clock.advance(Duration::from_secs(1));
        closed.quit(&relay, LeftMail::Keep).await.assert_ok();
        Self { relay, unknown, closed, forbidden, open }
    }

    fn unwelcome(&self) -> [&TestServer; 3] {
        [&self.unknown, &self.closed, &self.forbidden]
    }
}

#[tokio::test]
async fn unknown_closed_and_forbidden_mailboxes_answer_alike_after_the_same_look_ups() {
    let named = Named::start(8).await;
    let owners = Owners::start(&named.routes).await;
    let mut answers = Vec::new();
    for (index, owner) in owners.unwelcome().into_iter().enumerate() {
        let (carrier, origin) = (&named.servers[2 * index], &named.servers[2 * index + 1]);
        let work = bring(&owners.relay, carrier, origin, owner);
        let (look_ups, answer) = named.look_ups(work).await;
        answer.assert_refused(403, "M_FORBIDDEN");
        assert_eq!(look_ups, 2, "the carrier's keys and the origin's");
        answers.push(answer.body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let work = bring(&owners.relay, &named.servers[6], &named.servers[7], &owners.open);
    let (look_ups, answer) = named.look_ups(work).await;
    answer.assert_ok();
    assert_eq!(look_ups, 2);
}

#[tokio::test]
async fn every_signature_is_verified_before_a_mailbox_is_looked_at() {
    let named = Named::start(2).await;
    let owners = Owners::start(&named.routes).await;
    let (relay, carrier, origin) = (&owners.relay, &named.servers[0], &named.servers[1]);
    // The right names with other keys: only who verifies can tell.
    let (false_carrier, false_origin) =
        (TestServer::named("s0.example", 66), TestServer::named("s1.example", 66));
    for owner in owners.unwelcome().into_iter().chain([&owners.open]) {
        bring(relay, &false_carrier, origin, owner).await.assert_refused(401, "M_UNAUTHORIZED");
        bring(relay, carrier, &false_origin, owner).await.assert_refused(400, "M_BAD_JSON");
        let altered = proven(relay, origin, owner).replace("\"edus\":[]", "\"edus\":[{}]");
        carrier.leave(relay, owner, "t", &altered).await.assert_refused(400, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn a_block_is_for_those_whom_it_names_and_who_left_needs_another_invite() {
    let owners = Owners::start("").await;
    let (relay, a, closed) = (&owners.relay, TestServer::new(9), &owners.closed);
    let body = a.transaction(relay, "m");
    a.leave(relay, &owners.forbidden, "t", &body).await.assert_ok();
    relay.clock.advance(Duration::from_secs(1));
    closed.register(relay, &closed.registration(relay)).await.assert_refused(403, "M_FORBIDDEN");
}
