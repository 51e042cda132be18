//! A relay as a program: opens the files that its configuration names, binds, serves, and stops softly.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use restante_federation::{
    Certificate, ClientConfigError, ConnectionsPerAddress, FederationClient, Identity, Listener,
    ListenerError, ServeLimits, SqliteKeyStore, create_private_folder, serve,
};
use restante_federation_proto::{Clock, ServerName};
use restante_mailbox::{MailboxStore, SqliteStore};
use restante_sqlite::OpenError;
use tokio_util::sync::CancellationToken;

use crate::config::RelayConfig;
use crate::own_key::{self, OwnKeyError};
use crate::service::{Service, ServiceParts};

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
    service: Service,
    listener: Listener,
    limits: ServeLimits,
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
        let parts = service_parts(&config, store, clock)?;
        let service = Service::new(&config, parts, shutdown.clone());
        let per_address = ConnectionsPerAddress::of_strangers(
            config.limits.connections_per_address_max,
            config.trusted_proxies,
        );
        let listener = Listener::bind(config.listen, config.tls.map(Into::into)).await?;
        let limits = ServeLimits {
            connections_max: config.limits.connections_max,
            ..ServeLimits::default()
        };
        Ok(Self { service, listener: listener.bounded(per_address), limits, shutdown })
    }

    /// The relay's name.
    pub fn server_name(&self) -> &ServerName {
        self.service.server_name()
    }

    /// The address that was bound.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// The certificate in use, if it speaks TLS.
    pub fn certificate(&self) -> Option<Certificate> {
        self.listener.certificate()
    }

    /// Serves until the token given to [`Relay::start`] is cancelled, then lets requests under way finish.
    pub async fn run(self) {
        let Self { service, listener, limits, shutdown } = self;
        let routes = service.routes();
        service.run(serve(listener, routes, limits, shutdown)).await;
    }
}

/// Readable by its owner alone: it holds strangers' mail and the signing key.
fn create_folder(config: &RelayConfig) -> Result<(), StartError> {
    create_private_folder(&config.data)
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
    Ok(Arc::new(SqliteStore::open(&config.data.join("relay.sqlite"))?))
}

fn service_parts(
    config: &RelayConfig,
    store: Arc<dyn MailboxStore>,
    clock: Arc<dyn Clock>,
) -> Result<ServiceParts, StartError> {
    let exchange = FederationClient::new(config.federation.client_config(), clock.clone())?;
    let key_store = SqliteKeyStore::open(&config.data.join("keys.sqlite"))?;
    Ok(ServiceParts {
        identity: identity(config)?,
        exchange: Arc::new(exchange),
        key_store: Arc::new(key_store),
        store,
        clock,
    })
}
