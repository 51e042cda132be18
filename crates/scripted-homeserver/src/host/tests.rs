//! Homeservers that talk to each other without any node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;

use async_trait::async_trait;
use restante_federation::{Body, ExchangeError, full};
use restante_federation_proto::{ManualClock, RoomVersion, SigningKey};

use super::*;
use crate::{Habits, Room};

const ROOM: &str = "!r:a.test";

/// Servers that reach each other as long as they are not cut off.
#[derive(Default)]
struct Wire {
    hosts: Mutex<BTreeMap<ServerName, Weak<Shared>>>,
    cut_off: Mutex<BTreeSet<ServerName>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Exchange for Wire {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        _: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = peer.name.clone();
        self.asked.lock().unwrap().push(request.uri().path().to_owned());
        let (parts, body) = request.into_parts();
        let body = collect_limited(body, usize::MAX).await.unwrap();
        if self.cut_off.lock().unwrap().contains(&server) {
            return Err(ExchangeError::Connect { server, source: "refused".into() });
        }
        let shared = self.hosts.lock().unwrap()[&server].upgrade().unwrap();
        let answer = Host { shared }.answer(Request::from_parts(parts, body)).await;
        Ok(answer.map(full))
    }
}

fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn identity(server: &str) -> restante_federation::Identity {
    let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[server.as_bytes()[0]; 32]);
    restante_federation::Identity { server_name: name(server), key: Arc::new(key) }
}

struct World {
    wire: Arc<Wire>,
    a: Host,
    b: Host,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let members = [identity("a.test"), identity("b.test")];
        let room = Room::found(ROOM, RoomVersion::V11, &members, now).unwrap();
        let wire = Arc::new(Wire::default());
        let host = |server: &str| {
            let mut homeserver = Homeserver::new(identity(server), Habits::default(), now);
            homeserver.enter(room.clone());
            let clock = Arc::new(ManualClock::new(now));
            let host = Host::start(HostParts { homeserver, exchange: wire.clone(), clock });
            wire.hosts.lock().unwrap().insert(name(server), Arc::downgrade(&host.shared));
            host
        };
        let (a, b) = (host("a.test"), host("b.test"));
        Self { wire, a, b }
    }

    fn cut_off(&self, server: &str) {
        self.wire.cut_off.lock().unwrap().insert(name(server));
    }

    fn join_up(&self) {
        self.wire.cut_off.lock().unwrap().clear();
    }

    fn says(&self, body: &str) {
        self.a.say(ROOM, body, None).unwrap();
    }

    /// What B's user saw in the room.
    fn seen(&self) -> Vec<String> {
        self.b.look(|state| {
            let room = state.room(ROOM).unwrap();
            let events = room.timeline().iter().filter_map(|id| room.event(id)?.body());
            events.map(str::to_owned).collect()
        })
    }

    async fn minutes(&self, minutes: u64) {
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_seen_at_the_other_end_in_order() {
    let world = World::new();
    (1..=60).for_each(|number| world.says(&number.to_string()));
    world.a.to_device(&name("b.test"), "hello");
    world.minutes(1).await;
    assert_eq!(world.seen(), (1..=60).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(world.b.look(|state| state.seen().edus.len()), 1);
    assert!(world.a.look(Homeserver::has_sent_all));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_newest_event_comes_and_the_rest_is_asked_for() {
    let world = World::new();
    world.cut_off("b.test");
    (1..=30).for_each(|number| world.says(&number.to_string()));
    world.minutes(20).await;
    world.a.restart();
    world.join_up();
    world.minutes(20).await;
    assert_eq!(world.seen().len(), 30);
    assert!(world.wire.asked.lock().unwrap().iter().any(|path| path.contains("backfill")));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_dropped_when_what_it_follows_can_not_be_had() {
    let world = World::new();
    world.cut_off("b.test");
    world.says("lost");
    world.minutes(1).await;
    world.a.restart();
    world.says("newest");
    world.join_up();
    world.cut_off("a.test");
    world.minutes(20).await;
    assert_eq!(world.seen(), [""; 0]);
    assert_eq!(world.b.look(|state| state.seen().dropped.len()), 0, "B has no key of A");
    world.join_up();
    world.says("after");
    world.minutes(20).await;
    assert_eq!(world.seen(), ["lost", "newest", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_takes_effect_once_and_only_with_its_signature() {
    let world = World::new();
    let content = canonical(&serde_json::json!({"pdus": [], "edus": [
        {"edu_type": "m.direct_to_device", "content": {"message_id": "1"}}, {"edu_type": "m.typing", "content": {}},
    ]}));
    let send = async |content: Bytes| {
        let target = "/_matrix/federation/v1/send/1".parse().unwrap();
        let signed = signed_request(
            &identity("a.test"),
            Method::PUT,
            &target,
            &name("b.test"),
            Some(content.clone()),
        );
        world.b.answer(signed.map(|_| content.clone())).await.status()
    };
    assert_eq!(send(content.clone()).await, 200);
    assert_eq!(send(content.clone()).await, 200);
    assert_eq!(world.b.look(|state| state.seen().edus.len()), 2);
    let target = "/_matrix/federation/v1/send/2".parse().unwrap();
    let signed =
        signed_request(&identity("c.test"), Method::PUT, &target, &name("b.test"), Some(content));
    let forged = signed.map(|_| Bytes::from_static(b"{}"));
    world.cut_off("c.test");
    assert_eq!(world.b.answer(forged).await.status(), 401);
}
