//! A relay on a free port, and servers that call it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use restante_federation::config::{DnsSection, DnsWord};
use restante_federation::{
    Body, ClientConfig, Exchange, FederationClient, Identity, Patience, Peer, collect_limited,
    full, signed_request,
};
use restante_federation_proto::{
    Clock, ManualClock, ServerName, SignableRequest, SigningKey, SystemClock, Timestamp,
    canonicalise, mint,
};
use restante_operators::{BASE, ConfigSource, FreshConfig};
use restante_relay::{Relay, RelayConfig, Stores};
use restante_relay_api::endpoints::{COLLECT, MAILBOX, mailbox_user_id, send_relay_target};
use restante_relay_api::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Content, Extras, LeaveRequest,
    LeftMail, Proof, RecordedRelay, RegistrationRequest, RelayRecord, Senders, Waybill, hex,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A relay in a temporary folder.
pub(crate) struct TestRelay {
    pub(crate) peer: Peer,
    pub(crate) clock: Arc<ManualClock>,
    client: Arc<FederationClient>,
    operators: Peer,
    folder: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A homeserver that is its key.
#[derive(Clone)]
pub(crate) struct TestServer {
    pub(crate) identity: Identity,
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With configuration in TOML.
    pub(crate) async fn start_with(config: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        Self::open(folder, clock, config).await
    }

    async fn open(folder: Arc<tempfile::TempDir>, clock: Arc<ManualClock>, config: &str) -> Self {
        let config = configuration(&folder, config);
        let shutdown = CancellationToken::new();
        let relay = Relay::start(config, clock.clone(), shutdown.clone()).await.unwrap();
        Self::run(relay, folder, clock, shutdown)
    }

    /// With a configuration file that the test may change.
    pub(crate) async fn start_reloadable(text: &str) -> (Self, Arc<ConfigFile>) {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let file =
            Arc::new(ConfigFile { text: Mutex::new(text.to_owned()), folder: folder.clone() });
        let FreshConfig { config, keys } = file.read().unwrap();
        let shutdown = CancellationToken::new();
        let mut relay = Relay::start(config, clock.clone(), shutdown.clone()).await.unwrap();
        relay.reloaded_from(file.clone(), &keys);
        (Self::run(relay, folder, clock, shutdown), file)
    }

    /// On stores of the test's own.
    pub(crate) async fn start_on(stores: Stores, config: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let config = configuration(&folder, config);
        let shutdown = CancellationToken::new();
        let relay = Relay::start_with_stores(config, stores, clock.clone(), shutdown.clone());
        Self::run(relay.await.unwrap(), folder, clock, shutdown)
    }

    fn run(
        relay: Relay,
        folder: Arc<tempfile::TempDir>,
        clock: Arc<ManualClock>,
        shutdown: CancellationToken,
    ) -> Self {
        let url = format!("http://{}", relay.local_address()).parse().unwrap();
        let peer = Peer::new(relay.server_name().clone(), Some(url));
        let url = format!("http://{}", relay.operators_address()).parse().unwrap();
        let operators = Peer::new(relay.server_name().clone(), Some(url));
        let client = FederationClient::new(ClientConfig::default(), clock.clone()).unwrap();
        let running = Some(tokio::spawn(relay.run()));
        Self { peer, clock, client: Arc::new(client), operators, folder, shutdown, running }
    }

    /// Stops softly and starts again on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with("").await
    }

    /// The same with configuration in TOML.
    pub(crate) async fn restart_with(mut self, config: &str) -> Self {
        self.shutdown.cancel();
        let (folder, clock) = (self.folder.clone(), self.clock.clone());
        self.running.take().unwrap().await.unwrap();
        Self::open(folder, clock, config).await
    }

    /// Begins to stop; requests under way are answered.
    pub(crate) fn stop_softly(&self) {
        self.shutdown.cancel();
    }

    pub(crate) fn data(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.peer.name
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let patience =
            Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(70) };
        let response = self.client.exchange(&self.peer, request, patience).await.unwrap();
        let (head, body) = response.into_parts();
        let body = collect_limited(body, 1 << 26).await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// The same from another address, as a reverse proxy on this machine brings it.
    pub(crate) async fn send_from(&self, address: &str, mut request: Request<Body>) -> Answer {
        request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
        self.send(request).await
    }

    /// A request at the operators' door, with the token or without.
    pub(crate) async fn at_operators(
        &self,
        method: Method,
        target: &str,
        token: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let patience =
            Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(70) };
        let request = Request::builder().method(method).uri(target).header("authorization", token);
        let request = request.body(full(body.into())).unwrap();
        let response = self.client.exchange(&self.operators, request, patience).await.unwrap();
        let (head, body) = response.into_parts();
        let body = collect_limited(body, 1 << 26).await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// What the operator of this relay has done, below the base of the admin API.
    pub(crate) async fn operator(
        &self,
        method: Method,
        target: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let token = std::fs::read_to_string(self.data().join("data/admin-token")).unwrap();
        let target = format!("{BASE}{target}");
        self.at_operators(method, &target, &format!("Bearer {}", token.trim()), body).await
    }

    /// An unsigned request.
    pub(crate) async fn plain(&self, method: Method, target: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(target);
        self.send(request.body(full(body.to_owned())).unwrap()).await
    }
}

/// A configuration file in memory.
pub(crate) struct ConfigFile {
    pub(crate) text: Mutex<String>,
    folder: Arc<tempfile::TempDir>,
}

impl ConfigSource<RelayConfig> for ConfigFile {
    fn read(&self) -> Result<FreshConfig<RelayConfig>, String> {
        let text = self.text.lock().unwrap().clone();
        let keys = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let config = toml::from_str(&text).map_err(|error| error.to_string())?;
        Ok(FreshConfig { config: at_free_ports(&self.folder, config), keys })
    }
}

fn configuration(folder: &tempfile::TempDir, text: &str) -> RelayConfig {
    at_free_ports(folder, toml::from_str(text).unwrap())
}

fn at_free_ports(folder: &tempfile::TempDir, mut config: RelayConfig) -> RelayConfig {
    config.listen = ([127, 0, 0, 1], 0).into();
    config.operators.listen = config.listen;
    config.data = folder.path().join("data");
    config.federation.dns = DnsSection::Word(DnsWord::Off);
    config
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, errcode: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.json()["errcode"], errcode, "{self:?}");
        assert!(!self.json()["error"].as_str().unwrap().is_empty());
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()
    }
}

impl TestServer {
    pub(crate) fn new(seed: u8) -> Self {
        let key = SigningKey::from_seed("ed25519:auto".parse().unwrap(), &[seed; 32]);
        let server_name = ServerName::of_key(&key.public_key());
        Self { identity: Identity { server_name, key: Arc::new(key) } }
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.identity.server_name
    }

    /// A transaction of this server with one PDU that says `text`.
    pub(crate) fn transaction(&self, relay: &TestRelay, text: &str) -> String {
        json!({
            "origin": self.name(), "origin_server_ts": relay.clock.now().as_millis(),
            "pdus": [{ "type": "m.room.message", "content": { "body": text } }], "edus": []
        })
        .to_string()
    }

    /// A server with a name that is not its key.
    pub(crate) fn named(name: &str, seed: u8) -> Self {
        let mut server = Self::new(seed);
        server.identity.server_name = name.parse().unwrap();
        server
    }

    /// A signed request with a body as it stands.
    pub(crate) fn request(
        &self,
        relay: &TestRelay,
        method: Method,
        target: &str,
        body: &str,
    ) -> Request<Body> {
        let target = target.parse().unwrap();
        let canonical = || canonicalise(body.as_bytes()).unwrap().into_owned().into();
        let content = (!body.is_empty()).then(canonical);
        signed_request(&self.identity, method, &target, relay.name(), content)
    }

    /// The header that signs another request than the one it is put into.
    pub(crate) fn misplaced_signature(&self, relay: &TestRelay) -> String {
        let request = self.request(relay, Method::GET, "/elsewhere", "");
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    /// Makes such a request.
    pub(crate) async fn call(
        &self,
        relay: &TestRelay,
        method: Method,
        target: &str,
        body: &str,
    ) -> Answer {
        relay.send(self.request(relay, method, target, body)).await
    }

    /// This server's relay record, made at `version`.
    pub(crate) fn record(&self, relay: &TestRelay, version: Timestamp) -> Box<RawValue> {
        let here = RecordedRelay { server_name: relay.name().clone(), url: None, priority: 0 };
        let record = RelayRecord { server_name: self.name().clone(), relays: vec![here], version };
        let signed = record.signed(&self.identity.key);
        RawValue::from_string(String::from_utf8(signed).unwrap()).unwrap()
    }

    /// What this server says to register: everybody may leave mail, and no invite.
    pub(crate) fn registration(&self, relay: &TestRelay) -> RegistrationRequest {
        let now = relay.clock.now();
        RegistrationRequest {
            record: self.record(relay, now),
            senders: Senders::default(),
            time_to_live_ms: None,
            invite: None,
            keys: None,
            outgoing: false,
            signed_at: now,
        }
    }

    pub(crate) async fn register(
        &self,
        relay: &TestRelay,
        request: &RegistrationRequest,
    ) -> Answer {
        let body = String::from_utf8(request.to_canonical_json()).unwrap();
        self.call(relay, Method::PUT, MAILBOX, &body).await
    }

    pub(crate) async fn quit(&self, relay: &TestRelay, mail: LeftMail) -> Answer {
        let request = LeaveRequest { mail, signed_at: relay.clock.now() };
        let body = String::from_utf8(request.to_canonical_json()).unwrap();
        self.call(relay, Method::DELETE, MAILBOX, &body).await
    }

    /// Leaves a transaction without a proof, as Dendrite does.
    pub(crate) async fn leave(
        &self,
        relay: &TestRelay,
        recipient: &TestServer,
        txn_id: &str,
        body: &str,
    ) -> Answer {
        let target = send_relay_target(txn_id, recipient.name());
        self.call(relay, Method::PUT, target.as_str(), body).await
    }

    /// Collects one, as Dendrite does.
    pub(crate) async fn relay_txn(&self, relay: &TestRelay, entry_id: u64) -> Value {
        let body = json!({ "entry_id": entry_id }).to_string();
        let target = format!("/_matrix/federation/v1/relay_txn/{}", mailbox_user_id(self.name()));
        self.call(relay, Method::GET, &target, &body).await.assert_ok()
    }

    /// The proof of this server's `/send` of `content` to `destination`.
    pub(crate) fn proof(&self, destination: &ServerName, txn_id: &str, content: &Content) -> Proof {
        let uri = format!("/_matrix/federation/v1/send/{txn_id}");
        let signable = SignableRequest {
            method: "PUT",
            target: &uri.parse().unwrap(),
            origin: self.name(),
            destination: Some(destination),
            content: Some(content.canonical()),
        };
        let authorization = signable.sign(&self.identity.key).to_string();
        Proof { uri, authorization }
    }

    /// What a node adds to `content`.
    pub(crate) fn extras(
        &self,
        relay: &TestRelay,
        destination: &ServerName,
        txn_id: &str,
        content: &Content,
    ) -> Extras {
        let waybill = Waybill {
            origin: self.name().clone(),
            destination: destination.clone(),
            stream: "stream".into(),
            seq: 1,
            content_sha256: hex(content.sha256()),
            capsule_sha256: None,
            deposited_at: relay.clock.now(),
        };
        let week = relay.clock.now().after(Duration::from_secs(7 * 24 * 3600));
        let keys = mint(self.name(), &self.identity.key, None, week);
        let proof = self.proof(destination, txn_id, content);
        Extras::new(&proof, &waybill.signed(&self.identity.key), keys.raw()).unwrap()
    }

    pub(crate) async fn collect(
        &self,
        relay: &TestRelay,
        request: &CollectRequest,
    ) -> CollectResponse {
        let answer = self.collect_raw(relay, request).await;
        answer.assert_ok();
        CollectResponse::parse(&answer.body).unwrap()
    }

    pub(crate) async fn collect_raw(&self, relay: &TestRelay, request: &CollectRequest) -> Answer {
        let body = String::from_utf8(request.to_canonical_json()).unwrap();
        self.call(relay, Method::POST, COLLECT, &body).await
    }
}

/// Asks for everything at once.
pub(crate) fn collect_all(relay: &TestRelay) -> CollectRequest {
    CollectRequest {
        after: 0,
        acknowledge: Vec::new(),
        have: Vec::new(),
        limit: 500,
        max_bytes: 1 << 22,
        wait_ms: 0,
        heard_until: None,
        signed_at: relay.clock.now(),
    }
}

/// Acknowledges everything in `collected`.
pub(crate) fn acknowledge_all(collected: &CollectResponse) -> Vec<CollectAcknowledgement> {
    let acknowledge = |envelope: &restante_relay_api::WireEnvelope| CollectAcknowledgement {
        id: envelope.id,
        sha256: Some(envelope.sha256.clone()),
    };
    collected.envelopes.iter().map(acknowledge).collect()
}

/// The texts of the PDUs in the order of the envelopes.
pub(crate) fn texts(collected: &CollectResponse) -> Vec<String> {
    let text = |envelope: &restante_relay_api::WireEnvelope| {
        let content: Value = serde_json::from_slice(&envelope.content).unwrap();
        content["pdus"][0]["content"]["body"].as_str().unwrap().to_owned()
    };
    collected.envelopes.iter().map(text).collect()
}
