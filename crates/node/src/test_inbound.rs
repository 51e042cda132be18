//! A homeserver, origins and relays in memory, for tests of what comes in.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use restante_federation::{
    Body, Exchange, ExchangeError, KeyRing, KeyRingParts, MemoryKeyStore, Patience, Peer, Stage,
    collect_limited, full,
};
use restante_federation_proto::{
    RequestTarget, RoomVersion, ServerName, SignableRequest, Timestamp, event_id, mint,
};
use restante_relay_api::endpoints::{COLLECT, RELAY_TXN, SEND};
use restante_relay_api::{
    Capsule, CollectRequest, CollectResponse, Content, Extras, Proof, Queued, RelayTxnResponse,
    Waybill, WireEnvelope, hex,
};
use tokio_util::sync::CancellationToken;

use crate::homeserver::Homeserver;
use crate::inbox::{self, Inbox, InboxSettings, InboxStatus};
use crate::retriever::{self, CollectSettings, RetrieverStatus};
use crate::test_site::{BEGINNING, OWN_NAME, TestSite, identity, name};

/// The room version of every room here.
const VERSION: RoomVersion = RoomVersion::V10;

/// The default of the configuration.
pub(crate) const GAP_WAIT: InboxSettings = InboxSettings { gap_wait: Duration::from_secs(900) };

/// Staged events that the homeserver keeps per room, as Synapse does.
const STAGED_MAX: usize = 100;

/// A homeserver that takes transactions like Synapse: once each, staging events, and storing them only after their
/// predecessors.
#[derive(Default)]
pub(crate) struct FakeHomeserver {
    state: Mutex<HomeserverState>,
}

#[derive(Default)]
struct HomeserverState {
    is_down: bool,
    answers: VecDeque<(u16, &'static str)>,
    seen: HashSet<(String, String)>,
    staged: BTreeMap<String, VecDeque<(String, Vec<String>)>>,
    stored: BTreeMap<String, Vec<String>>,
    edus: usize,
    transactions: Vec<String>,
    passed: Vec<String>,
    most_staged: usize,
    own_transactions: usize,
    acls: BTreeMap<String, serde_json::Value>,
    /// Events that it takes and does not store, and how often.
    drops: BTreeMap<String, u32>,
}

impl FakeHomeserver {
    fn state(&self) -> std::sync::MutexGuard<'_, HomeserverState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn joins(&self, room: &str, event_id: &str) {
        self.state().stored.insert(room.to_owned(), vec![event_id.to_owned()]);
    }

    pub(crate) fn has_acl(&self, room: &str, content: serde_json::Value) {
        self.state().acls.insert(room.to_owned(), content);
    }

    /// It takes `event_id` and does not store it, so many times.
    pub(crate) fn drops(&self, event_id: &str, times: u32) {
        self.state().drops.insert(event_id.to_owned(), times);
    }

    /// How many transactions came in its own name.
    pub(crate) fn own_transactions(&self) -> usize {
        self.state().own_transactions
    }

    /// An event comes to be stored, as if another server had sent it.
    pub(crate) fn gets(&self, room: &str, event_id: &str) {
        self.state().stored.get_mut(room).unwrap().push(event_id.to_owned());
    }

    pub(crate) fn is_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// The next transactions get these answers.
    pub(crate) fn answer_next(&self, answers: &[(u16, &'static str)]) {
        self.state().answers.extend(answers);
    }

    pub(crate) fn forget_answers(&self) {
        self.state().answers.clear();
    }

    /// Everything stored in `room` after what it began with.
    pub(crate) fn stored(&self, room: &str) -> Vec<String> {
        self.state().stored.get(room).map(|events| events[1..].to_vec()).unwrap_or_default()
    }

    /// Ids of all transactions that were put, repeated ones included.
    pub(crate) fn transactions(&self) -> Vec<String> {
        self.state().transactions.clone()
    }

    pub(crate) fn passed(&self) -> Vec<String> {
        self.state().passed.clone()
    }

    pub(crate) fn edus(&self) -> usize {
        self.state().edus
    }

    pub(crate) fn most_staged(&self) -> usize {
        self.state().most_staged
    }
}

impl HomeserverState {
    fn send(&mut self, authorization: &str, txn_id: &str, body: &[u8]) -> (u16, String) {
        let is_own = authorization.contains(&format!("origin=\"{OWN_NAME}\""));
        if is_own {
            self.own_transactions += 1;
        } else {
            self.transactions.push(txn_id.to_owned());
        }
        if let Some((status, json)) = self.answers.pop_front() {
            return (status, json.to_owned());
        }
        if self.seen.insert((authorization.to_owned(), txn_id.to_owned())) {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            self.edus += body["edus"].as_array().map_or(0, Vec::len);
            for pdu in body["pdus"].as_array().into_iter().flatten() {
                self.stage(pdu);
            }
        }
        (200, r#"{"pdus":{}}"#.to_owned())
    }

    fn stage(&mut self, pdu: &serde_json::Value) {
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        let prev = pdu["prev_events"].as_array().unwrap().iter();
        let prev = prev.map(|prev| prev.as_str().unwrap().to_owned()).collect();
        if let Some(times) = self.drops.get_mut(&id).filter(|times| **times > 0) {
            *times -= 1;
            return;
        }
        let staged = self.staged.entry(pdu["room_id"].as_str().unwrap().to_owned()).or_default();
        if staged.len() < STAGED_MAX {
            staged.push_back((id, prev));
        }
        self.most_staged = self.most_staged.max(staged.len());
    }

    /// Some time passed: some staged events are stored, or dropped.
    fn work(&mut self, room: &str) {
        let Some(stored) = self.stored.get_mut(room) else { return };
        let staged = self.staged.entry(room.to_owned()).or_default();
        for (id, prev) in staged.drain(..staged.len().min(15)) {
            if prev.iter().all(|prev| stored.contains(prev)) && !stored.contains(&id) {
                stored.push(id);
            }
        }
    }

    fn answer(
        &mut self,
        target: &str,
        method: &Method,
        authorization: &str,
        body: &[u8],
    ) -> (u16, String) {
        if let Some(txn_id) = target.strip_prefix(SEND).filter(|_| *method == Method::PUT) {
            return self.send(authorization, txn_id, body);
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/make_join/") {
            let room = rest.split('/').next().unwrap().replace("%21", "!");
            if let Some(stored) = self.stored.get(&room)
                && !rest.ends_with("ver=zzz")
            {
                let template = serde_json::json!({"event": {"prev_events": [stored.last()]}});
                return (200, template.to_string());
            }
            if self.stored.contains_key(&room) {
                let json = r#"{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"10"}"#;
                return (400, json.to_owned());
            }
            return (404, "{}".to_owned());
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/state_ids/") {
            let (room, id) = rest.split_once("?event_id=").unwrap();
            let room = room.replace("%21", "!");
            self.work(&room);
            let Some(stored) = self.stored.get(&room) else { return (403, "{}".to_owned()) };
            let is_stored = stored.iter().any(|stored| stored == id);
            return (if is_stored { 200 } else { 404 }, "{}".to_owned());
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/state/") {
            let room = rest.split_once("?event_id=").unwrap().0.replace("%21", "!");
            let mut pdus = vec![serde_json::json!({
                "type": "m.room.member", "state_key": format!("@u:{OWN_NAME}"),
                "content": {"membership": "join"},
            })];
            pdus.extend(self.acls.get(&room).map(|content| {
                serde_json::json!({"type": "m.room.server_acl", "state_key": "", "content": content})
            }));
            return (200, serde_json::json!({ "pdus": pdus }).to_string());
        }
        if target.starts_with("/_matrix/federation/v1/timestamp_to_event/") {
            return (200, r#"{"event_id":"$start"}"#.to_owned());
        }
        if let Some(id) = target.strip_prefix("/_matrix/federation/v1/event/") {
            let is_stored = self.stored.values().flatten().any(|stored| stored == id);
            let pdus = r#"{"pdus":[{"type":"m.room.message","content":{}}]}"#;
            return if is_stored { (200, pdus.to_owned()) } else { (404, "{}".to_owned()) };
        }
        self.passed.push(target.to_owned());
        (200, "{}".to_owned())
    }
}

#[async_trait]
impl Exchange for FakeHomeserver {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        _: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let (parts, body) = request.into_parts();
        let body = collect_limited(body, usize::MAX).await.unwrap();
        tokio::task::yield_now().await;
        let mut state = self.state();
        if state.is_down {
            let server = peer.name.clone();
            return Err(ExchangeError::Connect { server, source: "connection refused".into() });
        }
        let authorization = parts.headers.get(header::AUTHORIZATION);
        let authorization = authorization.map_or("", |value| value.to_str().unwrap()).to_owned();
        let target = parts.uri.to_string();
        let (status, json) = state.answer(&target, &parts.method, &authorization, &body);
        Ok(Response::builder().status(status).body(full(json)).unwrap())
    }
}

/// What a relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manner {
    #[default]
    Honest,
    /// Never answers.
    Hangs,
    /// Takes acknowledgements, and breaks the connection then.
    BreaksOffAnswers,
    /// Knows only `relay_txn`.
    Old,
    /// Its clock is this much ahead.
    ClockAhead(Duration),
}

#[derive(Default)]
struct Mailbox {
    manner: Manner,
    entries: BTreeMap<u64, WireEnvelope>,
    next_id: u64,
    asked: usize,
}

/// Relays in memory; every other server can't be reached.
#[derive(Default)]
pub(crate) struct FakeRelays {
    mailboxes: Mutex<BTreeMap<ServerName, Mailbox>>,
    changed: tokio::sync::Notify,
}

impl FakeRelays {
    fn with<T>(&self, relay: &str, work: impl FnOnce(&mut Mailbox) -> T) -> T {
        work(self.mailboxes.lock().unwrap().entry(name(relay)).or_default())
    }

    pub(crate) fn set(&self, relay: &str, manner: Manner) {
        self.with(relay, |mailbox| mailbox.manner = manner);
        self.changed.notify_waiters();
    }

    pub(crate) fn left(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.entries.len())
    }

    pub(crate) fn asked(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.asked)
    }

    pub(crate) fn hold(&self, relay: &str, letter: &Letter) {
        self.with(relay, |mailbox| {
            mailbox.next_id += 10;
            let mut envelope = letter.envelope.clone();
            envelope.id = mailbox.next_id;
            mailbox.entries.insert(envelope.id, envelope);
        });
        self.changed.notify_waiters();
    }

    fn collect(&self, relay: &ServerName, request: &CollectRequest) -> CollectResponse {
        self.with(relay.as_str(), |mailbox| {
            for acknowledged in &request.acknowledge {
                let entry = mailbox.entries.get(&acknowledged.id);
                if entry.is_some_and(|entry| Some(&entry.sha256) == acknowledged.sha256.as_ref()) {
                    mailbox.entries.remove(&acknowledged.id);
                }
            }
            let after = mailbox.entries.range(request.after + 1..);
            let envelopes = after.take(request.limit as usize).map(|(_, entry)| entry.clone());
            CollectResponse {
                envelopes: envelopes.collect(),
                queued: Queued { count: mailbox.entries.len() as u64, bytes: 0, oldest_at: None },
            }
        })
    }

    async fn wait_and_collect(
        &self,
        relay: &ServerName,
        request: CollectRequest,
    ) -> CollectResponse {
        let wait = Duration::from_millis(request.wait_ms);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let response = self.collect(relay, &request);
            if !response.envelopes.is_empty()
                || tokio::time::timeout_at(deadline, changed).await.is_err()
            {
                return response;
            }
        }
    }

    fn relay_txn(&self, relay: &ServerName, body: &[u8]) -> Bytes {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        self.with(relay.as_str(), |mailbox| {
            mailbox.entries.remove(&body["entry_id"].as_u64().unwrap());
            let first = mailbox.entries.first_key_value();
            let response =
                first.map_or(RelayTxnResponse::Empty, |(id, entry)| RelayTxnResponse::Envelope {
                    entry_id: *id,
                    content: entry.content.clone(),
                    extras: entry.extras.clone(),
                });
            response.to_json()
        })
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(full(body)).unwrap()
}

#[async_trait]
impl Exchange for FakeRelays {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = peer.name.clone();
        let is_known = self.mailboxes.lock().unwrap().contains_key(&server);
        if !is_known {
            return Err(ExchangeError::Connect { server, source: "connection refused".into() });
        }
        let manner = self.with(server.as_str(), |mailbox| {
            mailbox.asked += 1;
            mailbox.manner
        });
        let target = request.uri().to_string();
        let body = collect_limited(request.into_body(), usize::MAX).await.unwrap();
        match manner {
            Manner::Hangs => {
                tokio::time::sleep(patience.answer).await;
                Err(ExchangeError::Timeout { server, stage: Stage::Answer })
            }
            Manner::Old if target.starts_with(RELAY_TXN) => {
                Ok(answer(200, self.relay_txn(&server, &body)))
            }
            _ if target != COLLECT || manner == Manner::Old => Ok(answer(404, "{}")),
            Manner::ClockAhead(ahead) => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let theirs = BEGINNING.after(ahead);
                if theirs.since(request.signed_at) > Duration::from_secs(60) {
                    let refusal =
                        format!(r#"{{"errcode":"M_FORBIDDEN","now":{}}}"#, theirs.as_millis());
                    return Ok(answer(403, refusal));
                }
                Ok(answer(200, self.wait_and_collect(&server, request).await.to_json()))
            }
            manner => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let is_acknowledging = !request.acknowledge.is_empty();
                if manner == Manner::BreaksOffAnswers && is_acknowledging {
                    return Err(ExchangeError::Broken { server, source: "reset".into() });
                }
                Ok(answer(200, self.wait_and_collect(&server, request).await.to_json()))
            }
        }
    }
}

/// One envelope as an origin's node leaves it.
#[derive(Clone)]
pub(crate) struct Letter {
    pub(crate) envelope: WireEnvelope,
}

impl Letter {
    /// The same, with the content changed by somebody in between.
    pub(crate) fn altered(&self) -> Self {
        let mut envelope = self.envelope.clone();
        let content = String::from_utf8(envelope.content.to_vec()).unwrap();
        let altered = content.replace("hello", "hullo");
        assert_ne!(content, altered);
        envelope.sha256 = hex(Content::parse(altered.clone().into()).unwrap().sha256());
        envelope.content = altered.into();
        Self { envelope }
    }

    /// The same, with another event in the capsule.
    pub(crate) fn with_altered_capsule(&self) -> Self {
        let mut envelope = self.envelope.clone();
        let extras = String::from_utf8(envelope.extras.to_vec()).unwrap();
        let altered = extras.replace("hello", "hullo");
        assert_ne!(extras, altered);
        envelope.extras = altered.into();
        Self { envelope }
    }

    pub(crate) fn without_proof(&self) -> Self {
        let mut envelope = self.envelope.clone();
        envelope.extras = Bytes::new();
        Self { envelope }
    }

    /// The Authorization header of its proof.
    pub(crate) fn authorization(&self) -> String {
        let extras = Extras::parse(self.envelope.extras.clone()).unwrap();
        extras.proof.unwrap().authorization
    }

    pub(crate) fn waybill_header(&self) -> String {
        let extras = Extras::parse(self.envelope.extras.clone()).unwrap();
        Waybill::to_header(&extras.waybill.unwrap())
    }
}

/// A server that writes into a room, and its node.
pub(crate) struct Writer {
    origin: restante_federation::Identity,
    stream: String,
    seq: u64,
    last: BTreeMap<String, String>,
    pub(crate) written: Vec<String>,
    signed_at: Timestamp,
}

impl Writer {
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: identity(origin),
            stream: format!("stream of {origin}"),
            seq: 0,
            last: BTreeMap::new(),
            written: Vec::new(),
            signed_at: BEGINNING,
        }
    }

    /// With a key of its own choice.
    pub(crate) fn impostor(origin: &str) -> Self {
        let mut writer = Self::new(origin);
        writer.origin.key = identity("impostor.test").key;
        writer
    }

    pub(crate) fn signs_at(mut self, signed_at: Timestamp) -> Self {
        self.signed_at = signed_at;
        self
    }

    pub(crate) fn document(&self) -> restante_federation_proto::KeyDocument {
        let valid_until = BEGINNING.after(Duration::from_secs(37 * 24 * 3600));
        mint(&self.origin.server_name, &self.origin.key, None, valid_until)
    }

    /// A message after the last one in `room`; the first follows `$start`.
    pub(crate) fn message(&mut self, room: &str) -> Letter {
        let pdu = self.draft(room);
        self.letter(&[pdu], &[])
    }

    /// A message after the last one in `room` that is not sent.
    pub(crate) fn draft(&mut self, room: &str) -> serde_json::Value {
        let prev = self.last.get(room).cloned().unwrap_or_else(|| "$start".to_owned());
        let mut pdu = serde_json::json!({
            "type": "m.room.message", "room_id": room, "sender": format!("@x:{}", self.origin.server_name),
            "content": {"body": "hello"}, "prev_events": [prev], "auth_events": [], "depth": self.written.len(),
            "origin_server_ts": self.signed_at,
        });
        let hash = inbox::content_hash::content_hash(pdu.to_string().as_bytes()).unwrap();
        pdu["hashes"] = serde_json::json!({ "sha256": hash });
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        self.last.insert(room.to_owned(), id.clone());
        self.written.push(id);
        pdu
    }

    /// A message after `prev`, and nothing else follows it by itself; its id.
    pub(crate) fn draft_after(&mut self, room: &str, prev: &[&str]) -> (serde_json::Value, String) {
        let mut pdu = self.draft(room);
        pdu["prev_events"] = prev.into();
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        *self.written.last_mut().unwrap() = id.clone();
        self.last.insert(room.to_owned(), id.clone());
        (pdu, id)
    }

    pub(crate) fn edu(&mut self) -> Letter {
        self.letter(&[], &[serde_json::json!({"edu_type": "m.direct_to_device", "content": {}})])
    }

    /// A transaction with a capsule.
    pub(crate) fn letter_with(
        &mut self,
        pdus: &[serde_json::Value],
        enclosed: &[serde_json::Value],
    ) -> Letter {
        let enclosed: Vec<Bytes> = enclosed.iter().map(|pdu| pdu.to_string().into()).collect();
        self.make_letter(self.next_txn(), pdus, &[], Some(Capsule::new(&enclosed, []).unwrap()))
    }

    pub(crate) fn letter(
        &mut self,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
    ) -> Letter {
        self.make_letter(self.next_txn(), pdus, edus, None)
    }

    /// Another body under the transaction id of the first one.
    pub(crate) fn letter_again(
        &mut self,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
    ) -> Letter {
        self.make_letter("t1".to_owned(), pdus, edus, None)
    }

    fn next_txn(&self) -> String {
        format!("t{}", self.seq + 1)
    }

    fn make_letter(
        &mut self,
        txn_id: String,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
        capsule: Option<Capsule>,
    ) -> Letter {
        self.seq += 1;
        let origin = &self.origin.server_name;
        let content = serde_json::json!({
            "origin": origin, "origin_server_ts": self.signed_at, "pdus": pdus, "edus": edus,
        });
        let content = Content::parse(content.to_string().into()).unwrap();
        let target: RequestTarget = format!("{SEND}{txn_id}").parse().unwrap();
        let destination = name(OWN_NAME);
        let authorization = SignableRequest {
            method: "PUT",
            target: &target,
            origin,
            destination: Some(&destination),
            content: Some(content.canonical()),
        }
        .sign(&self.origin.key);
        let proof =
            Proof { uri: target.as_str().to_owned(), authorization: authorization.to_string() };
        let waybill = Waybill {
            origin: origin.clone(),
            destination,
            stream: self.stream.clone(),
            seq: self.seq,
            content_sha256: hex(content.sha256()),
            capsule_sha256: capsule.as_ref().map(|capsule| hex(capsule.sha256())),
            deposited_at: self.signed_at,
        };
        let waybill = waybill.signed(&self.origin.key);
        let extras = Extras::new(&proof, &waybill, self.document().raw()).unwrap();
        let extras = match capsule {
            Some(capsule) => extras.with_capsule(&capsule).unwrap(),
            None => extras,
        };
        let envelope = WireEnvelope {
            id: 0,
            sha256: hex(content.sha256()),
            origin: origin.clone(),
            txn_id,
            deposited_at: self.signed_at,
            content: content.raw().clone(),
            extras: extras.json,
        };
        Letter { envelope }
    }
}

/// A node with a fake homeserver and fake relays.
pub(crate) struct InboundSite {
    pub(crate) node: TestSite,
    pub(crate) homeserver: Arc<FakeHomeserver>,
    pub(crate) relays: Arc<FakeRelays>,
    store: Arc<MemoryKeyStore>,
}

impl InboundSite {
    /// Collects from these relays.
    pub(crate) async fn new(relays: &[&str]) -> Self {
        let node = TestSite::new().await;
        for relay in relays {
            node.site.relays.add(name(OWN_NAME), name(relay).into()).await.unwrap();
        }
        let fakes = Arc::new(FakeRelays::default());
        relays.iter().for_each(|relay| fakes.set(relay, Manner::Honest));
        let site = Self { node, homeserver: Arc::default(), relays: fakes, store: Arc::default() };
        site.furnished()
    }

    fn furnished(mut self) -> Self {
        let site = &mut self.node.site;
        site.homeserver = Homeserver::over(site.identity.clone(), self.homeserver.clone());
        site.exchange = self.relays.clone();
        site.keys = Arc::new(KeyRing::new(KeyRingParts {
            identity: site.identity.clone(),
            exchange: self.relays.clone(),
            store: self.store.clone(),
            clock: site.clock.clone(),
            notaries: vec![],
            vouchers: vec![],
        }));
        self
    }

    /// The node after a restart.
    pub(crate) async fn restarted(self) -> Self {
        let Self { node, homeserver, relays, store } = self;
        Self { node: node.restarted().await, homeserver, relays, store }.furnished()
    }

    /// Believes the keys of `writer`'s server.
    pub(crate) async fn knows(&self, writer: &Writer) {
        self.node.site.keys.trust(&writer.document()).await.unwrap();
    }

    /// Runs inbox and retriever until `done` says so.
    pub(crate) async fn run_until(&self, done: impl Fn(&InboxStatus) -> bool) -> InboxStatus {
        self.run_with(async |inbox| status_when(&inbox, done).await).await
    }

    /// Runs inbox and retriever beside `work`.
    pub(crate) async fn run_with<T>(&self, work: impl AsyncFnOnce(Inbox) -> T) -> T {
        self.run_watched(async |inbox, _| work(inbox).await).await
    }

    /// The same, with what the operator sees of the relays.
    pub(crate) async fn run_watched<T>(
        &self,
        work: impl AsyncFnOnce(Inbox, RetrieverStatus) -> T,
    ) -> T {
        let inbox = Inbox::open(self.node.site.clone(), GAP_WAIT).await.unwrap();
        let stop = CancellationToken::new();
        let settings = CollectSettings {
            wait: Duration::from_secs(30),
            safety_interval: Duration::from_secs(300),
        };
        let status = RetrieverStatus::default();
        let site = self.node.site.clone();
        let running = async {
            tokio::join!(
                inbox::run(inbox.clone(), stop.clone()),
                retriever::run(site, inbox.clone(), settings, status.clone(), stop.clone()),
            )
        };
        let working = async {
            let result = work(inbox.clone(), status.clone()).await;
            stop.cancel();
            result
        };
        self.node.run(async { tokio::join!(running, working).1 }).await
    }
}

/// The status, as soon as `done` says so.
pub(crate) async fn status_when(inbox: &Inbox, done: impl Fn(&InboxStatus) -> bool) -> InboxStatus {
    let watching = async {
        loop {
            let status = inbox.status().await.unwrap();
            if done(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(600), watching).await {
        Ok(status) => status,
        Err(_) => panic!("it does not come to that: {:#?}", inbox.status().await.unwrap()),
    }
}

/// Transaction ids without repetitions.
pub(crate) fn distinct(transactions: &[String]) -> usize {
    transactions.iter().collect::<BTreeSet<_>>().len()
}
