//! A node as a whole: opens its state, binds its three listeners, serves, and stops softly.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use restante_federation::{
    ClientConfigError, FederationClient, Identity, KeyRing, KeyRingParts, Listener, ListenerError,
    ServeLimits, SqliteKeyStore, serve,
};
use restante_federation_proto::{Clock, SigningKey};
use restante_sqlite::{OpenError, StoreError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState, TokenError};
use crate::background::Background;
use crate::config::NodeConfig;
use crate::delivery::Delivery;
use crate::destinations::{DestinationParts, Destinations, OfflinePolicy};
use crate::homeserver::{Homeserver, HomeserverUrlError};
use crate::inbound::{self, Front};
use crate::inbox::{self, Inbox};
use crate::outbound::{self, OutboundSettings};
use crate::own_keys::OwnKeys;
use crate::passed::Passed;
use crate::relay_book::RelayBook;
use crate::retriever::{self, RetrieverStatus};
use crate::site::Site;
use crate::stand_in::StandIn;
use crate::store;

/// How long deposits that go on after their call may take when the node stops.
const BACKGROUND_DRAIN: Duration = Duration::from_secs(15);

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
    config: NodeConfig,
    site: Site,
    delivery: Delivery,
    inbox: Inbox,
    token: admin::Token,
    background: Background,
    listeners: Listeners,
    shutdown: CancellationToken,
}

struct Listeners {
    outbound: Listener,
    inbound: Listener,
    admin: Listener,
}

impl Node {
    /// Opens everything that `config` names and binds the addresses. `shutdown` stops it later.
    pub async fn start(
        config: NodeConfig,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        create_folder(&config)?;
        let identity = identity(&config)?;
        let background = Background::default();
        let site = open_site(&config, identity, clock, &background).await?;
        let delivery = Delivery::open(site.clone(), &config.delivery, background.clone()).await?;
        let inbox = Inbox::open(site.clone(), config.inbox.clone().into()).await?;
        let token = admin::open_token(&config.data)?;
        let tls = config.inbound.tls.clone().map(Into::into);
        let listeners = Listeners {
            outbound: Listener::bind(config.outbound.listen, None).await?,
            inbound: Listener::bind(config.inbound.listen, tls).await?,
            admin: Listener::bind(config.admin.listen, None).await?,
        };
        Ok(Self { config, site, delivery, inbox, token, background, listeners, shutdown })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            outbound: self.listeners.outbound.local_address(),
            inbound: self.listeners.inbound.local_address(),
            admin: self.listeners.admin.local_address(),
        }
    }

    /// Serves until the token given to [`Node::start`] is cancelled, then lets what is under way finish.
    pub async fn run(self) {
        let Self { config, site, delivery, inbox, token, background, listeners, shutdown } = self;
        let retriever = RetrieverStatus::default();
        let admin = admin::router(AdminState {
            site: site.clone(),
            delivery: delivery.clone(),
            inbox: inbox.clone(),
            retriever: retriever.clone(),
            token,
        });
        let outbound = OutboundSettings {
            secret: config.outbound.secret,
            delivery,
            background: background.clone(),
        };
        let tasks = TaskTracker::new();
        let stop = || shutdown.clone();
        tasks.spawn(outbound::serve(site.clone(), outbound, listeners.outbound, stop()));
        let front = if config.inbound.tls.is_some() { Front::Tls } else { Front::Proxy };
        tasks.spawn(inbound::serve(site.clone(), listeners.inbound, front, inbox.clone(), stop()));
        tasks.spawn(serve(listeners.admin, admin, ServeLimits::default(), stop()));
        tasks.spawn(inbox::run(inbox.clone(), stop()));
        tasks.spawn(retriever::run(site, inbox, config.collect.into(), retriever, stop()));
        tasks.close();
        tasks.wait().await;
        background.stop(BACKGROUND_DRAIN).await;
    }
}

/// Readable by its owner alone: it holds mail and the operator's token.
fn create_folder(config: &NodeConfig) -> Result<(), StartError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .map_err(|source| StartError::DataFolder { path: config.data.clone(), source })
}

fn identity(config: &NodeConfig) -> Result<Identity, StartError> {
    let path = &config.signing_key;
    let text = fs::read_to_string(path)
        .map_err(|source| StartError::KeyUnreadable { path: path.clone(), source })?;
    let key = SigningKey::from_file_text(&text)
        .map_err(|_| StartError::KeyMalformed { path: path.clone() })?;
    Ok(Identity { server_name: config.server_name.clone(), key: Arc::new(key) })
}

async fn open_site(
    config: &NodeConfig,
    identity: Identity,
    clock: Arc<dyn Clock>,
    background: &Background,
) -> Result<Site, StartError> {
    let database = store::open(&config.data)?;
    let exchange =
        Arc::new(FederationClient::new(config.federation.client_config(), clock.clone())?);
    let homeserver = Homeserver::new(identity.clone(), config.homeserver.clone())?;
    let keys = KeyRing::new(KeyRingParts {
        identity: identity.clone(),
        exchange: exchange.clone(),
        store: Arc::new(SqliteKeyStore::open(&config.data.join("keys.sqlite"))?),
        clock: clock.clone(),
        notaries: config.keys.notaries(),
        vouchers: vec![Arc::new(homeserver.clone())],
    });
    let own_keys =
        OwnKeys::open(identity.clone(), homeserver.clone(), database.clone(), clock.clone());
    let configured = config
        .relays
        .iter()
        .map(|(server, relays)| (server.clone(), relays.iter().cloned().map(Into::into).collect()));
    let destinations = Destinations::open(DestinationParts {
        exchange: exchange.clone(),
        database: database.clone(),
        clock: clock.clone(),
        background: background.clone(),
        policy: OfflinePolicy {
            attempts_until_offline: config.delivery.attempts_until_offline,
            probe_interval: config.delivery.probe_interval.0,
            probe_connect: config.delivery.probe_connect.0,
        },
    });
    let stand_in = StandIn::new(database.clone(), homeserver.clone(), clock.clone());
    Ok(Site {
        stand_in,
        passed: Passed::new(database.clone(), clock.clone()),
        identity,
        homeserver,
        exchange,
        keys: Arc::new(keys),
        witness: Arc::default(),
        own_keys: Arc::new(own_keys.await?),
        relays: RelayBook::open(database.clone(), configured.collect()).await?,
        destinations: destinations.await?,
        database,
        clock,
    })
}
