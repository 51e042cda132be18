//! A relay as a whole: opens its state, binds, serves, and stops softly.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use restante_federation::{
    ClientConfigError, FederationClient, Identity, KeyRing, KeyRingParts, Listener, ListenerError,
    ServeLimits, SqliteKeyStore, serve,
};
use restante_federation_proto::{Clock, ServerName};
use restante_mailbox::{EnvelopeAge, MailboxLimits, MailboxStore, SqliteStore};
use restante_relay_api::limits::AHEAD_MAX;
use restante_sqlite::OpenError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::config::RelayConfig;
use crate::expiry;
use crate::memory::Memory;
use crate::own_key::{self, OwnKey, OwnKeyError};
use crate::router::router;
use crate::state::{DestinationRule, Parts, RelayState, Rules};

/// Why a relay does not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be made.
    #[error("cannot create the data folder {path}; choose another with --data")]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The signing key can't be used.
    #[error(transparent)]
    Key(#[from] OwnKeyError),
    /// A database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The configuration of outgoing calls can't be used.
    #[error(transparent)]
    Client(#[from] ClientConfigError),
    /// The address can't be bound, or the certificate can't be used.
    #[error(transparent)]
    Listener(#[from] ListenerError),
}

/// A relay that is bound and ready to serve.
pub struct Relay {
    state: RelayState,
    listener: Listener,
    limits: ServeLimits,
    time_to_live: std::time::Duration,
    shutdown: CancellationToken,
}

impl Relay {
    /// Opens everything that `config` names and binds the address. `shutdown` stops it later.
    pub async fn start(
        config: RelayConfig,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let store = open_store(&config)?;
        Self::start_with_store(config, store, clock, shutdown).await
    }

    /// The same on a store of the caller's: another backend, or one that a benchmark measures against.
    pub async fn start_with_store(
        config: RelayConfig,
        store: Arc<dyn MailboxStore>,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let identity = identity(&config)?;
        let keys = Arc::new(open_keys(&config, &identity, clock.clone())?);
        let listener = Listener::bind(config.listen, config.tls.clone().map(Into::into)).await?;
        let state = RelayState::new(Parts {
            own_key: OwnKey::new(identity.clone()),
            identity,
            keys,
            store,
            clock,
            arrivals: Arrivals::new(config.limits.waiting_collects_max),
            rules: rules(&config),
            request_memory: Memory::new(),
            answer_memory: Memory::new(),
            deposits: TaskTracker::new(),
            shutdown: shutdown.clone(),
        });
        let limits = ServeLimits {
            connections_max: config.limits.connections_max,
            ..ServeLimits::default()
        };
        let time_to_live = config.mailbox.time_to_live.0;
        Ok(Self { state, listener, limits, time_to_live, shutdown })
    }

    /// The relay's name.
    pub fn server_name(&self) -> &ServerName {
        self.state.server_name()
    }

    /// The address that was bound.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// Serves until the token given to [`Relay::start`] is cancelled, then lets requests under way finish.
    pub async fn run(self) {
        let tasks = TaskTracker::new();
        let (store, clock) = (self.state.store.clone(), self.state.clock.clone());
        tasks.spawn(expiry::run(store, clock, self.time_to_live, self.shutdown.clone()));
        tasks.close();
        let deposits = self.state.deposits.clone();
        serve(self.listener, router(self.state), self.limits, self.shutdown).await;
        deposits.close();
        deposits.wait().await;
        tasks.wait().await;
    }
}

/// Readable by its owner alone: it holds strangers' mail and the signing key.
fn create_folder(config: &RelayConfig) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .map_err(|source| StartError::DataFolder { path: config.data.clone(), source })
}

fn identity(config: &RelayConfig) -> Result<Identity, StartError> {
    let path = config.signing_key.clone().unwrap_or_else(|| config.data.join("signing.key"));
    let key = own_key::load_or_create(&path)?;
    let by_key = || ServerName::of_key(&key.public_key());
    let server_name = config.server_name.clone().unwrap_or_else(by_key);
    Ok(Identity { server_name, key: Arc::new(key) })
}

fn open_store(config: &RelayConfig) -> Result<Arc<dyn MailboxStore>, OpenError> {
    let limits = MailboxLimits {
        envelopes_max: config.mailbox.envelopes_max,
        bytes_max: config.mailbox.bytes_max,
    };
    Ok(Arc::new(SqliteStore::open(&config.data.join("relay.sqlite"), limits)?))
}

fn open_keys(
    config: &RelayConfig,
    identity: &Identity,
    clock: Arc<dyn Clock>,
) -> Result<KeyRing, StartError> {
    let exchange = FederationClient::new(config.federation.client_config(), clock.clone())?;
    let store = SqliteKeyStore::open(&config.data.join("keys.sqlite"))?;
    Ok(KeyRing::new(KeyRingParts {
        identity: identity.clone(),
        exchange: Arc::new(exchange),
        store: Arc::new(store),
        clock,
        notaries: config.keys.notaries(),
        vouchers: Vec::new(),
    }))
}

fn rules(config: &RelayConfig) -> Rules {
    let destination = if config.federation.require_destination {
        DestinationRule::Required
    } else {
        DestinationRule::Optional
    };
    let age = EnvelopeAge { time_to_live: config.mailbox.time_to_live.0, ahead_max: AHEAD_MAX };
    Rules { body_bytes_max: config.limits.body_bytes_max, age, destination }
}
