//! A homeserver, origins and relays in memory, for tests of what comes in.

mod homeserver;
mod relays;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use restante_federation::{KeyRing, KeyRingParts, MemoryKeyStore};
use restante_federation_proto::RoomVersion;
use tokio_util::sync::CancellationToken;

use crate::homeserver::Homeserver;
use crate::inbox::{self, Inbox, InboxSettings, InboxStatus};
use crate::retriever::{self, CollectSettings, RetrieverStatus};
use crate::test_site::{OWN_NAME, TestSite, name};

pub(crate) use homeserver::FakeHomeserver;
pub(crate) use relays::{FakeRelays, Manner};
pub(crate) use writer::{Letter, Writer};

/// The relay of [`InboundSite::with_room`].
pub(crate) const RELAY: &str = "relay.test";

/// The room of [`InboundSite::with_room`].
pub(crate) const ROOM: &str = "!room";

/// The room version of every room here.
const VERSION: RoomVersion = RoomVersion::V10;

/// The default of the configuration.
pub(crate) const GAP_WAIT: InboxSettings = InboxSettings { gap_wait: Duration::from_secs(900) };

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

    /// Collects from [`RELAY`]; the homeserver is in [`ROOM`].
    pub(crate) async fn with_room() -> Self {
        let site = Self::new(&[RELAY]).await;
        site.homeserver.joins(ROOM, "$start");
        site
    }

    /// [`RELAY`] holds these.
    pub(crate) fn hold(&self, letters: &[Letter]) {
        letters.iter().for_each(|letter| self.relays.hold(RELAY, letter));
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
