//! A relay without a listener: its routes, and the work that goes on behind them.
//!
//! [`crate::Relay`] opens the files that a configuration names, and binds an address; a simulation brings its own
//! network, store and clock.

use std::sync::Arc;

use axum::{Router, middleware};
use restante_federation::{
    BaseUrl, Certificate, ConnectionsPerAddress, Exchange, Identity, KeyRing, KeyRingParts,
    KeyStore, OpenConnections,
};
use restante_federation_proto::{Clock, Dice, ServerName};
use restante_operators::{
    ConfigSource, Metrics, Readiness, Reload, Reloader, RequestDurations, Token,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::callers::Callers;
use crate::config::RelayConfig;
use crate::disk::{Disk, DiskWatch};
use crate::expiry::{self, Sealing};
use crate::lapsing;
use crate::memory::{Memory, Reading};
use crate::metrics::{self, Counted, CountingStore};
use crate::onward::{self, OnwardState};
use crate::operators::{self, OperatorsState};
use crate::own_key::OwnKey;
use crate::registrations::Registrations;
use crate::reload::{Changes, RELOADED_KEYS};
use crate::router::router;
use crate::rules::{Rules, RulesInForce};
use crate::signed_at::Started;
use crate::state::{AdmissionState, Parts, RelayState};
use crate::stores::Stores;

/// What a relay works with.
pub struct ServiceParts {
    /// The relay's name and key.
    pub identity: Identity,
    /// How to reach other servers, for their keys and for mail that is delivered onward.
    pub exchange: Arc<dyn Exchange>,
    /// Believed keys.
    pub key_store: Arc<dyn KeyStore>,
    /// The mailboxes.
    pub stores: Stores,
    /// The disk that they are on.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for the names of requests.
    pub dice: Arc<dyn Dice>,
}

/// A relay without a listener.
pub struct Service {
    state: RelayState,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    durations: RequestDurations,
    public_url: watch::Sender<Option<BaseUrl>>,
    reload: Option<Arc<dyn Reload>>,
    sealing: Sealing,
}

impl Service {
    /// A relay with these parts. Of `config`, files and addresses are left alone. `shutdown` ends what waits.
    pub fn new(config: &RelayConfig, parts: ServiceParts, shutdown: CancellationToken) -> Self {
        let ServiceParts { identity, exchange, key_store, stores, disk, clock, dice } = parts;
        let keys = Arc::new(KeyRing::new(KeyRingParts {
            identity: identity.clone(),
            exchange: exchange.clone(),
            store: key_store,
            clock: clock.clone(),
            notaries: config.keys.notaries(),
            vouchers: Vec::new(),
        }));
        let counted = Counted::default();
        let stores = Stores { mail: CountingStore::around(stores.mail, counted.clone()), ..stores };
        let state = RelayState::new(Parts {
            own_key: OwnKey::new(identity.clone()),
            identity,
            keys,
            store: stores.mail.clone(),
            admission: AdmissionState {
                callers: Callers::new(per_address(config).exempt),
                registrations: Registrations::new(stores.registry.clone()),
                disk: DiskWatch::new(disk),
            },
            stores,
            started: Started::at(clock.now()),
            clock,
            dice,
            rules: RulesInForce::new(Rules::of(config)),
            arrivals: Arrivals::default(),
            onward: OnwardState::default(),
            exchange,
            counted,
            request_memory: Memory::new(),
            reading: Reading::new(),
            answer_memory: Memory::new(),
            deposits: TaskTracker::new(),
            shutdown,
        });
        let sealing = match config.at_rest.key_file {
            Some(_) => Sealing::MayBeOld,
            None => Sealing::UpToDate,
        };
        let (metrics, durations) = metrics::of(&state);
        Self {
            readiness: operators::readiness(&state),
            metrics,
            durations,
            public_url: watch::Sender::new(config.public_url.clone()),
            reload: None,
            state,
            sealing,
        }
    }

    /// The relay's name.
    pub fn server_name(&self) -> &ServerName {
        self.state.server_name()
    }

    /// What its handlers share.
    #[cfg(test)]
    pub(crate) fn state(&self) -> &RelayState {
        &self.state
    }

    /// Takes up changes of `source`; `keys` is what it said when the relay was started.
    pub(crate) fn reloaded_from(
        &mut self,
        source: Arc<dyn ConfigSource<RelayConfig>>,
        keys: &toml::Table,
        certificate: Option<Certificate>,
    ) -> Arc<dyn Reload> {
        let changes = Changes { relay: self.state.clone(), public_url: self.public_url.clone() };
        let reloader = Reloader::new(source, keys, RELOADED_KEYS, changes);
        let reload: Arc<dyn Reload> = Arc::new(reloader.with_certificate("tls", certificate));
        self.reload = Some(reload.clone());
        reload
    }

    /// The operators' door, which asks for `token`.
    pub(crate) fn operators(&self, token: Token, connections: OpenConnections) -> Router {
        let state = OperatorsState {
            relay: self.state.clone(),
            readiness: self.readiness.clone(),
            connections,
            public_url: self.public_url.subscribe(),
            importing: Arc::default(),
            reload: self.reload.clone(),
        };
        operators::door(state, self.metrics.clone(), token).router()
    }

    /// All routes.
    pub fn routes(&self) -> Router {
        let counted = middleware::from_fn_with_state(self.state.counted.clone(), metrics::count);
        let timed =
            middleware::from_fn_with_state(self.durations.clone(), RequestDurations::measure);
        router(self.state.clone()).layer(counted).layer(timed)
    }

    /// Lets mail expire and watches the disk until shutdown, and `serve` as well, which answers requests meanwhile; then
    /// lets deposits under way finish.
    pub async fn run(self, serve: impl Future<Output = ()>) {
        let tasks = TaskTracker::new();
        tasks.spawn(expiry::run(self.state.clone(), self.sealing));
        tasks.spawn(lapsing::run(self.state.clone()));
        tasks.spawn(onward::run(self.state.clone()));
        let watched = self.state.clone();
        tasks.spawn(async move {
            let min = || watched.rules().storage.free_disk_bytes_min;
            watched.admission.disk.run(min, watched.shutdown.clone()).await;
        });
        tasks.close();
        serve.await;
        self.state.deposits.close();
        self.state.deposits.wait().await;
        tasks.wait().await;
    }
}

/// How many connections each address may have; reverse proxies and loopback bring everybody's.
pub(crate) fn per_address(config: &RelayConfig) -> ConnectionsPerAddress {
    ConnectionsPerAddress::of_strangers(
        config.limits.connections_per_address_max,
        config.trusted_proxies.clone(),
    )
}
