//! A node as a program: opens the files that its configuration names, binds its three listeners, serves, and stops softly.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use restante_federation::{
    Certificate, ClientConfigError, ConnectionsPerAddress, FederationClient, Identity,
    InheritedSockets, Listener, ListenerError, Place, ServeLimits, SqliteKeyStore, TrustedProxies,
    create_private_folder, serve,
};
use restante_federation_proto::{Clock, SigningKey, SystemDice};
use restante_operators::{ConfigSource, Entrance, Reload, TokenError};
use restante_sqlite::{OpenError, StoreError};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::NodeConfig;
use crate::homeserver::{self, HomeserverUrlError};
use crate::service::{Service, ServiceParts};
use crate::store;

/// Why a node does not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be made.
    #[error("cannot create the data folder {path}; set another as data in the configuration")]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The homeserver's signing key can't be read.
    #[error("cannot read the homeserver's signing key {path}; the node must run as a user who may")]
    KeyUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a signing key.
    #[error("{path} is not a signing key as Synapse writes it: ed25519 VERSION SEED")]
    KeyMalformed {
        /// The file.
        path: PathBuf,
    },
    /// A database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The state can't be read.
    #[error("cannot read the node's state")]
    State(#[from] StoreError),
    /// The configuration of outgoing calls can't be used.
    #[error(transparent)]
    Client(#[from] ClientConfigError),
    /// The homeserver's URL can't be used.
    #[error(transparent)]
    Homeserver(#[from] HomeserverUrlError),
    /// An address can't be bound, or a certificate can't be used.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The operator's token can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Where a node listens, with the ports that the system chose for 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For the homeserver.
    pub outbound: SocketAddr,
    /// For other servers.
    pub inbound: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
}

/// A node that is bound and ready to serve.
pub struct Node {
    service: Service,
    listeners: Listeners,
    shutdown: CancellationToken,
}

struct Listeners {
    outbound: Listener,
    inbound: Listener,
    admin: Entrance,
}

impl Node {
    /// Opens everything that `config` names and binds the addresses. `shutdown` stops it later.
    pub async fn start(
        config: NodeConfig,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        Self::start_on(config, clock, InheritedSockets::default(), shutdown).await
    }

    /// The same on sockets that the service manager holds: `outbound`, `inbound` and `admin`.
    pub async fn start_on(
        config: NodeConfig,
        clock: Arc<dyn Clock>,
        mut sockets: InheritedSockets,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let parts = service_parts(&config, clock)?;
        let listeners = Listeners::open(&config, &mut sockets).await?;
        sockets.close_rest();
        let service = Service::open(config, parts).await?;
        Ok(Self { service, listeners, shutdown })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            outbound: self.listeners.outbound.local_address(),
            inbound: self.listeners.inbound.local_address(),
            admin: self.listeners.admin.local_address(),
        }
    }

    /// The certificate of the inbound address, if it speaks TLS.
    pub fn certificate(&self) -> Option<Certificate> {
        self.listeners.inbound.certificate()
    }

    /// Takes up changes of `source` when [`Reload::reload`] or the operator says so; `keys` is what it said when the
    /// node was started.
    pub fn reloaded_from(
        &mut self,
        source: Arc<dyn ConfigSource<NodeConfig>>,
        keys: &toml::Table,
    ) -> Arc<dyn Reload> {
        self.service.reloaded_from(source, keys, self.listeners.inbound.certificate())
    }

    /// Serves until the token given to [`Node::start`] is cancelled, then lets what is under way finish.
    pub async fn run(self) {
        let Self { service, listeners, shutdown } = self;
        let doors = service.doors();
        let (limits, stop) = (ServeLimits::default(), || shutdown.clone());
        let serving = async {
            tokio::join!(
                serve(listeners.outbound, doors.outbound, limits, stop()),
                serve(listeners.inbound, doors.inbound, limits, stop()),
                listeners.admin.serve(doors.admin, limits, stop()),
            );
        };
        service.run(serving, stop()).await;
    }
}

impl Listeners {
    async fn open(
        config: &NodeConfig,
        sockets: &mut InheritedSockets,
    ) -> Result<Self, ListenerError> {
        let NodeConfig { outbound, inbound, admin, .. } = config;
        let place = |door, address| Place { door, address };
        let (tls, proxies) = (inbound.tls.clone(), inbound.trusted_proxies.clone());
        let per_address = ConnectionsPerAddress::of_strangers(
            inbound.connections_per_address_max,
            proxies.clone(),
        );
        let door = place("inbound", inbound.listen);
        let operators = Listener::open(place("admin", admin.listen), None, sockets).await?;
        Ok(Self {
            outbound: Listener::open(place("outbound", outbound.listen), None, sockets).await?,
            inbound: Listener::open(door, tls.map(Into::into), sockets)
                .await?
                .bounded(per_address)
                .behind(TrustedProxies::new(proxies)),
            admin: Entrance::open(operators, &admin.hosts, &config.data),
        })
    }
}

/// Readable by its owner alone: it holds mail and the operator's token.
fn create_folder(config: &NodeConfig) -> Result<(), StartError> {
    create_private_folder(&config.data)
        .map_err(|source| StartError::DataFolder { path: config.data.clone(), source })
}

/// The key that the homeserver signs with, and the others of its key file.
fn keys(config: &NodeConfig) -> Result<(Identity, Vec<SigningKey>), StartError> {
    let path = &config.signing_key;
    let text = fs::read_to_string(path)
        .map_err(|source| StartError::KeyUnreadable { path: path.clone(), source })?;
    let malformed = |_| StartError::KeyMalformed { path: path.clone() };
    let key = Arc::new(SigningKey::from_file_text(&text).map_err(malformed)?);
    let others = SigningKey::others_from_file_text(&text).map_err(malformed)?;
    Ok((Identity { server_name: config.server_name.clone(), key }, others))
}

fn service_parts(config: &NodeConfig, clock: Arc<dyn Clock>) -> Result<ServiceParts, StartError> {
    let database = store::open(&config.data)?;
    let (identity, other_keys) = keys(config)?;
    Ok(ServiceParts {
        identity,
        other_keys,
        exchange: Arc::new(FederationClient::new(config.client_config(), clock.clone())?),
        homeserver: homeserver::at(config.homeserver.clone())?,
        database,
        key_store: Arc::new(SqliteKeyStore::open(&config.data.join("keys.sqlite"))?),
        clock,
        dice: Arc::new(SystemDice),
        admin_token: admin::open_token(&config.data)?,
    })
}
