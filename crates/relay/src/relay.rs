//! A relay as a program: opens the files that its configuration names, binds, serves, and stops softly.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use restante_federation::{
    Certificate, ClientConfigError, FederationClient, Identity, InheritedSockets, Listener,
    ListenerError, Place, ServeLimits, SqliteKeyStore, TrustedProxies, create_private_folder,
    serve,
};
use restante_federation_proto::{Clock, ServerName, SystemDice};
use restante_mailbox::{KeyFileError, Keys, SqliteStore};
use restante_operators::{ConfigSource, Entrance, Reload, Token, TokenError};
use restante_sqlite::OpenError;
use tokio_util::sync::CancellationToken;

use crate::config::{OperatorsSection, RelayConfig, Serve};
use crate::disk::FolderDisk;
use crate::own_key::{self, OwnKeyError};
use crate::service::{Service, ServiceParts, per_address};
use crate::stores::Stores;

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
    /// The keys for mail on the disk can't be read.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The configuration of outgoing calls can't be used.
    #[error(transparent)]
    Client(#[from] ClientConfigError),
    /// The operators' address would show the token to others.
    #[error(
        "the operators' address {address} is not a loopback address, and what goes there is not encrypted; set \
         [operators] listen to 127.0.0.1:8091, or beyond_loopback = true if only you can reach it"
    )]
    OperatorsBeyondLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The operators' address can't be bound.
    #[error(
        "cannot listen on {address} for operators; each relay on a machine needs an address of its own for that: set \
         [operators] listen to another port"
    )]
    OperatorsListener {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: ListenerError,
    },
    /// The operators' token can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address can't be bound, or the certificate can't be used.
    #[error(transparent)]
    Listener(#[from] ListenerError),
}

/// A relay that is bound and ready to serve.
pub struct Relay {
    service: Service,
    listener: Listener,
    operators: Entrance,
    token: Token,
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
        Self::start_on(config, clock, InheritedSockets::default(), shutdown).await
    }

    /// The same on sockets that the service manager holds: `public` and `operators`.
    pub async fn start_on(
        config: RelayConfig,
        clock: Arc<dyn Clock>,
        mut sockets: InheritedSockets,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let stores = open_stores(&config)?;
        let relay = Self::open(config, (stores, clock), &mut sockets, shutdown).await?;
        sockets.close_rest();
        Ok(relay)
    }

    /// The same on a store of the caller's: another backend, or one that a benchmark measures against.
    pub async fn start_with_stores(
        config: RelayConfig,
        stores: Stores,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        Self::open(config, (stores, clock), &mut InheritedSockets::default(), shutdown).await
    }

    async fn open(
        config: RelayConfig,
        (stores, clock): (Stores, Arc<dyn Clock>),
        sockets: &mut InheritedSockets,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let parts = service_parts(&config, stores, clock)?;
        let service = Service::new(&config, parts, shutdown.clone());
        let per_address = per_address(&config);
        let place = Place { door: "public", address: config.listen };
        let listener = Listener::open(place, config.tls.map(Into::into), sockets).await?;
        let limits = ServeLimits {
            connections_max: config.limits.connections_max,
            ..ServeLimits::default()
        };
        warn_if_open_to_the_world(config.serve, listener.local_address());
        let proxies = TrustedProxies::new(config.trusted_proxies);
        let listener = listener.bounded(per_address).behind(proxies);
        let operators = bind_operators(&config.operators, &config.data, sockets).await?;
        let token = Token::load_or_create(&config.data.join("admin-token"))?;
        Ok(Self { service, listener, operators, token, limits, shutdown })
    }

    /// The relay's name.
    pub fn server_name(&self) -> &ServerName {
        self.service.server_name()
    }

    /// The address that was bound.
    pub fn local_address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// The address that was bound for operators.
    pub fn operators_address(&self) -> SocketAddr {
        self.operators.local_address()
    }

    /// Takes up changes of `source` when [`Reload::reload`] or the operator says so; `keys` is what it said when the
    /// relay was started.
    pub fn reloaded_from(
        &mut self,
        source: Arc<dyn ConfigSource<RelayConfig>>,
        keys: &toml::Table,
    ) -> Arc<dyn Reload> {
        self.service.reloaded_from(source, keys, self.listener.certificate())
    }

    /// The certificate in use, if it speaks TLS.
    pub fn certificate(&self) -> Option<Certificate> {
        self.listener.certificate()
    }

    /// Serves until the token given to [`Relay::start`] is cancelled, then lets requests under way finish.
    pub async fn run(self) {
        let Self { service, listener, operators, token, limits, shutdown } = self;
        let (routes, connections) = (service.routes(), listener.open_connections());
        let admin = service.operators(token, connections);
        let few = ServeLimits { connections_max: OPERATORS_CONNECTIONS_MAX, ..limits };
        let serving = async {
            tokio::join!(
                serve(listener, routes, limits, shutdown.clone()),
                operators.serve(admin, few, shutdown.clone()),
            );
        };
        service.run(serving).await;
    }
}

/// Monitors and a few commands; strangers do not come here.
const OPERATORS_CONNECTIONS_MAX: usize = 64;

async fn bind_operators(
    section: &OperatorsSection,
    folder: &Path,
    sockets: &mut InheritedSockets,
) -> Result<Entrance, StartError> {
    let address = section.listen;
    if !address.ip().is_loopback() && !section.beyond_loopback {
        return Err(StartError::OperatorsBeyondLoopback { address });
    }
    let place = Place { door: "operators", address };
    let bound = Listener::open(place, None, sockets).await;
    let bound = bound.map_err(|source| StartError::OperatorsListener { address, source })?;
    Ok(Entrance::open(bound, &section.hosts, folder))
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

fn warn_if_open_to_the_world(serve: Serve, address: SocketAddr) {
    if serve == Serve::Open && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %address,
            "this relay is open: whoever reaches this address can fill its disk with mail for anybody; set serve = \"invited\" or \"listed\" unless you mean it"
        );
    }
}

fn open_stores(config: &RelayConfig) -> Result<Stores, StartError> {
    let path = config.data.join("relay.sqlite");
    let keys = match &config.at_rest.key_file {
        Some(file) => Keys::read(file)?,
        None => Keys::none(),
    };
    let store = SqliteStore::open_keeping(&path, &keys, config.mailbox.time_to_live.0)?;
    Ok(Stores::of(Arc::new(store)))
}

fn service_parts(
    config: &RelayConfig,
    stores: Stores,
    clock: Arc<dyn Clock>,
) -> Result<ServiceParts, StartError> {
    let exchange = FederationClient::new(config.federation.client_config(), clock.clone())?;
    let key_store = SqliteKeyStore::open(&config.data.join("keys.sqlite"))?;
    Ok(ServiceParts {
        identity: identity(config)?,
        exchange: Arc::new(exchange),
        key_store: Arc::new(key_store),
        stores,
        disk: Arc::new(FolderDisk(config.data.clone())),
        clock,
        dice: Arc::new(SystemDice),
    })
}
