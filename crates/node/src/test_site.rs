//! A node's shared parts for tests: a scripted network, a clock set by hand, a database in a folder of its own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use restante_federation::{
    Body, Exchange, ExchangeError, Identity, KeyRing, KeyRingParts, MemoryKeyStore, NamedBy,
    Patience, Peer, Stage, WebFileError, collect_limited, full,
};
use restante_federation_proto::{ManualClock, ServerName, SigningKey, SystemDice, Timestamp};
use restante_relay_api::endpoints::RECORD_FILE;
use restante_sqlite::Database;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};

use crate::background::Background;
use crate::config::{DeliverySection, OutboxSection, RecordsSection};
use crate::delivery::DeliveryParts;
use crate::delivery::preference::Preferences;
use crate::delivery::schedule::Schedule;
use crate::destinations::{DestinationParts, Destinations, OfflinePolicy};
use crate::homeserver::Homeserver;
use crate::outbox::OutboxSettings;
use crate::own_keys::OwnKeys;
use crate::own_record::OwnRecord;
use crate::passed::Passed;
use crate::relay_book::RelayBook;
use crate::relay_records::RelayRecords;
use crate::relay_records::hearsay::Hearsay;
use crate::site::Site;
use crate::stand_in::StandIn;

/// When the clock of a test begins.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The homeserver of a test site.
pub(crate) const OWN_NAME: &str = "a.test";

/// A server name.
pub(crate) fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

/// A server's identity, its key derived from its name.
pub(crate) fn identity(server: &str) -> Identity {
    let mut seed = [0; 32];
    for (byte, letter) in seed.iter_mut().zip(server.bytes()) {
        *byte = letter;
    }
    let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &seed);
    Identity { server_name: name(server), key: Arc::new(key) }
}

/// A [`Site`] whose network is scripted.
pub(crate) struct TestSite {
    pub(crate) site: Site,
    pub(crate) exchange: Arc<ScriptedExchange>,
    /// What reaches the own homeserver; it is scripted like other servers, under the own name.
    pub(crate) own_homeserver: Arc<ScriptedExchange>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) background: Background,
    pub(crate) folder: Arc<TempDir>,
}

impl TestSite {
    pub(crate) async fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::new(BEGINNING));
        Self::open(folder, clock, Arc::default(), Arc::default()).await
    }

    /// The node after a restart: same folder, network and time.
    pub(crate) async fn restarted(self) -> Self {
        let Self { site, exchange, own_homeserver, clock, background, folder } = self;
        background.stop(Duration::from_secs(60)).await;
        drop(site);
        Self::open(folder, clock, exchange, own_homeserver).await
    }

    async fn open(
        folder: Arc<TempDir>,
        clock: Arc<ManualClock>,
        exchange: Arc<ScriptedExchange>,
        own_homeserver: Arc<ScriptedExchange>,
    ) -> Self {
        let identity = identity(OWN_NAME);
        let database = crate::store::open(folder.path()).unwrap();
        let homeserver = Homeserver::over(identity.clone(), own_homeserver.clone());
        let background = Background::default();
        let keys = KeyRing::new(KeyRingParts {
            identity: identity.clone(),
            exchange: exchange.clone(),
            store: Arc::new(MemoryKeyStore::default()),
            clock: clock.clone(),
            notaries: Vec::new(),
            vouchers: Vec::new(),
        });
        let own_keys =
            OwnKeys::open(identity.clone(), homeserver.clone(), database.clone(), clock.clone());
        let destinations = Destinations::open(DestinationParts {
            exchange: exchange.clone(),
            database: database.clone(),
            clock: clock.clone(),
            background: background.clone(),
            policy: (OfflinePolicy {
                attempts_until_offline: 2,
                probe_interval: Duration::from_secs(30),
                probe_connect: Duration::from_secs(3),
            })
            .into(),
        });
        let stand_in = StandIn::new(database.clone(), homeserver.clone(), clock.clone());
        let site_identity = identity.clone();
        let site = Site {
            stand_in,
            counted: Default::default(),
            bells: Arc::default(),
            passed: Passed::new(database.clone(), clock.clone()),
            identity,
            homeserver,
            exchange: exchange.clone(),
            keys: Arc::new(keys),
            witness: Arc::default(),
            own_keys: Arc::new(own_keys.await.unwrap()),
            relays: RelayBook::open(database.clone(), name(OWN_NAME), BTreeMap::new())
                .await
                .unwrap(),
            own_record: OwnRecord::new(site_identity, database.clone(), None),
            hearsay: Hearsay::new(clock.clone()),
            destinations: destinations.await.unwrap(),
            database,
            clock: clock.clone(),
            dice: Arc::new(SystemDice),
        };
        Self { site, exchange, own_homeserver, clock, background, folder }
    }

    /// Changes the database behind the node's back, as to have a write fail.
    pub(crate) async fn run_sql(&self, sql: &'static str) {
        self.site.database.write(move |connection| connection.execute_batch(sql)).await.unwrap();
    }

    /// What a delivery works with here.
    pub(crate) fn delivery_parts(&self, section: &DeliverySection) -> DeliveryParts {
        DeliveryParts {
            site: self.site.clone(),
            schedule: Schedule::from(section).into(),
            preferences: Preferences::from(section).into(),
            outbox: OutboxSettings::from(&OutboxSection::default()).into(),
            records: self.records(),
            background: self.background.clone(),
        }
    }

    /// Who finds relays here.
    pub(crate) fn records(&self) -> RelayRecords {
        let settings = RecordsSection::default();
        RelayRecords::new(self.site.clone(), &settings, self.background.clone())
    }

    /// Runs `work` in virtual time, in which the database takes none.
    ///
    /// tokio moves a paused clock on as soon as all tasks wait, and does not see that the database is at work. Here time
    /// stands still until its writer and its readers have nothing left to do.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holder = tokio::task::spawn_blocking(move || held.recv().ok());
        let is_done = Arc::new(AtomicBool::new(false));
        // A task of its own: joined with the work, it would have all of that polled at each of its turns.
        let passing = Passing {
            database: self.database.clone(),
            clock: self.clock.clone(),
            is_done: is_done.clone(),
        };
        let passing = tokio::spawn(passing.run());
        // A whole delivery is large, and a test's thread has a small stack.
        let result = Box::pin(work).await;
        is_done.store(true, Ordering::Relaxed);
        // Time ends by itself: readers that were left waiting for each other would wait for ever.
        passing.await.unwrap();
        drop(release);
        holder.await.unwrap();
        result
    }
}

/// Has time pass while the database has nothing to do.
struct Passing {
    database: Database,
    clock: Arc<ManualClock>,
    is_done: Arc<AtomicBool>,
}

impl Passing {
    async fn run(self) {
        let is_done = || self.is_done.load(Ordering::Relaxed);
        while !is_done() {
            // It may share the commit of a write that a test makes fail.
            let _ = self.database.write(|_| Ok(())).await;
            while self.database.reads_under_way() > 0 {
                tokio::task::yield_now().await;
            }
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if is_done() {
                return;
            }
            self.clock.advance(TICK);
            tokio::time::advance(TICK).await;
        }
    }
}

/// How finely virtual time passes.
const TICK: Duration = Duration::from_millis(10);

/// Turns that every task gets between two ticks: more than any chain of them needs to reach its next wait.
const YIELDS: usize = 16;

impl Deref for TestSite {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// What a scripted server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Answers with this status and JSON.
    Json(u16, &'static str),
    /// Answers with this status, content type and body.
    Page(u16, &'static str, Bytes),
    /// Refuses the connection at once.
    Refused,
    /// Takes no connection until the caller has no more patience.
    HangsAtConnect,
    /// Takes the request and never answers.
    HangsAtAnswer,
    /// Waits until the test lets it go on, then answers with 200 and this JSON.
    Gated(Arc<Notify>, &'static str),
}

/// A request that a scripted server saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) server: ServerName,
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Servers that answer as a test says; one without a script refuses connections.
#[derive(Default)]
pub(crate) struct ScriptedExchange {
    web_files: Mutex<HashMap<ServerName, Bytes>>,
    web_asked: Mutex<Vec<ServerName>>,
    scripts: Mutex<HashMap<ServerName, Vec<Reply>>>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
}

impl ScriptedExchange {
    /// From now on `server` answers everything with `reply`.
    pub(crate) fn answer(&self, server: &ServerName, reply: Reply) {
        self.script(server, [reply]);
    }

    /// `server` answers with these in turn, and with the last one for ever.
    pub(crate) fn script(&self, server: &ServerName, replies: impl IntoIterator<Item = Reply>) {
        let mut replies: Vec<Reply> = replies.into_iter().collect();
        replies.reverse();
        self.scripts.lock().unwrap().insert(server.clone(), replies);
    }

    /// From now on the web site of `server` has this file.
    pub(crate) fn has_web_file(&self, server: &ServerName, file: &Bytes) {
        self.web_files.lock().unwrap().insert(server.clone(), file.clone());
    }

    /// Whose web sites were asked so far.
    pub(crate) fn web_asked(&self) -> Vec<ServerName> {
        self.web_asked.lock().unwrap().clone()
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Every request to `server` so far.
    pub(crate) fn seen_by(&self, server: &ServerName) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.server == *server).collect()
    }

    /// The targets of every request to `server` so far.
    pub(crate) fn targets_of(&self, server: &ServerName) -> Vec<String> {
        self.seen_by(server).into_iter().map(|seen| seen.target).collect()
    }

    /// Waits until `count` requests have been seen.
    pub(crate) async fn wait_for(&self, count: usize) {
        self.count.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    fn next_reply(&self, server: &ServerName) -> Reply {
        let mut scripts = self.scripts.lock().unwrap();
        match scripts.get_mut(server) {
            Some(replies) if replies.len() > 1 => replies.pop().unwrap(),
            Some(replies) => replies.last().cloned().unwrap_or(Reply::Refused),
            None => Reply::Refused,
        }
    }
}

#[async_trait]
impl Exchange for ScriptedExchange {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        // A stranger's URL leads to whoever is there, whatever name stands beside it.
        let server = match (peer.named_by, &peer.url) {
            (NamedBy::Stranger, Some(url)) => url.host.parse().unwrap(),
            _ => peer.name.clone(),
        };
        let (head, body) = request.into_parts();
        let body = collect_limited(body, usize::MAX).await.unwrap();
        self.seen.lock().unwrap().push(Seen {
            server: server.clone(),
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body,
        });
        self.count.send_modify(|count| *count += 1);
        let (status, kind, body) = match self.next_reply(&server) {
            Reply::Json(status, json) => (status, "application/json", Bytes::from(json)),
            Reply::Page(status, kind, body) => (status, kind, body),
            Reply::Gated(gate, json) => {
                gate.notified().await;
                (200, "application/json", Bytes::from(json))
            }
            Reply::Refused => {
                return Err(ExchangeError::Connect { server, source: "connection refused".into() });
            }
            Reply::HangsAtConnect => {
                tokio::time::sleep(patience.connect).await;
                return Err(ExchangeError::Timeout { server, stage: Stage::Connect });
            }
            Reply::HangsAtAnswer => {
                tokio::time::sleep(patience.answer).await;
                return Err(ExchangeError::Timeout { server, stage: Stage::Answer });
            }
        };
        let response = Response::builder().status(status).header("content-type", kind);
        Ok(response.body(full(body)).unwrap())
    }

    async fn web_file(
        &self,
        server: &ServerName,
        path: &'static str,
        _: Duration,
    ) -> Result<Bytes, WebFileError> {
        assert_eq!(path, RECORD_FILE);
        self.web_asked.lock().unwrap().push(server.clone());
        let file = self.web_files.lock().unwrap().get(server).cloned();
        file.ok_or_else(|| WebFileError("it answered 404".to_owned()))
    }
}
