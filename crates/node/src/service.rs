//! A node without listeners: its state, its three doors, and the work that goes on behind them.
//!
//! [`crate::Node`] opens the files that a configuration names, and binds the doors to addresses; a simulation brings
//! its own network, database, clock and chance.

use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use restante_federation::{
    Certificate, DestinationRule, Exchange, Identity, KeyRing, KeyRingParts, KeyStore,
};
use restante_federation_proto::{Clock, Dice, SigningKey};
use restante_operators::{
    ConfigSource, Metrics, Readiness, Reload, Reloader, RequestDurations, Token,
};
use restante_sqlite::{Database, StoreError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::matrix_tokens::MatrixTokens;
use crate::admin::{self, AdminState, ready};
use crate::background::Background;
use crate::config::NodeConfig;
use crate::delivery::{Delivery, DeliveryParts};
use crate::destinations::{DestinationParts, Destinations};
use crate::homeserver::Homeserver;
use crate::inbound::{self, DoorSettings, Front};
use crate::inbox::{self, Inbox};
use crate::metrics;
use crate::outbound::{self, OutboundSettings};
use crate::outbox::{self, Outbox};
use crate::own_keys::OwnKeys;
use crate::own_record::{self, OwnRecord};
use crate::passed::Passed;
use crate::registration::Registrations;
use crate::relay_book::{RelayBook, configured};
use crate::relay_records::RelayRecords;
use crate::relay_records::hearsay::Hearsay;
use crate::reload::{Changes, RELOADED_KEYS, Settings};
use crate::retriever::{self, RetrieverStatus};
use crate::site::Site;
use crate::stand_in::StandIn;
use crate::waking;

/// How long deposits that go on after their call may take when the node stops.
const BACKGROUND_DRAIN: Duration = Duration::from_secs(15);

/// What a node works with.
pub struct ServiceParts {
    /// The homeserver's name and key.
    pub identity: Identity,
    /// Further keys of the homeserver, which it lists and signs its key document with as well.
    pub other_keys: Vec<SigningKey>,
    /// How to reach other servers.
    pub exchange: Arc<dyn Exchange>,
    /// How to reach the own homeserver.
    pub homeserver: Arc<dyn Exchange>,
    /// The node's state, with [`crate::SCHEMA`].
    pub database: Database,
    /// Believed keys.
    pub key_store: Arc<dyn KeyStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub dice: Arc<dyn Dice>,
    /// What the operator's door asks for.
    pub admin_token: Token,
}

/// Where requests enter.
#[derive(Clone)]
pub struct Doors {
    /// For the homeserver's own traffic: requests of Synapse's federation-worker hook.
    pub outbound: Router,
    /// For other servers.
    pub inbound: Router,
    /// For the operator.
    pub admin: Router,
}

/// A node without listeners.
pub struct Service {
    config: NodeConfig,
    settings: Settings,
    reload: Option<Arc<dyn Reload>>,
    site: Site,
    delivery: Delivery,
    inbox: Inbox,
    token: Token,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    durations: RequestDurations,
    background: Background,
    retriever: RetrieverStatus,
    registrations: Registrations,
    records: RelayRecords,
}

impl Service {
    /// Opens what `parts` hold. Of `config`, files and addresses are left alone.
    pub async fn open(config: NodeConfig, parts: ServiceParts) -> Result<Self, StoreError> {
        let token = parts.admin_token.clone();
        let background = Background::default();
        let settings = Settings::of(&config);
        let site = open_site(&config, &settings, parts, &background).await?;
        let records = RelayRecords::new(site.clone(), &config.records, background.clone());
        let delivery = Delivery::open(DeliveryParts {
            site: site.clone(),
            schedule: settings.schedule.clone(),
            preferences: settings.preferences.clone(),
            outbox: settings.outbox.clone(),
            records: records.clone(),
            background: background.clone(),
        });
        let delivery = delivery.await?;
        let inbox = Inbox::open(site.clone(), settings.inbox.clone()).await?;
        let retriever = RetrieverStatus::default();
        let registrations = Registrations::new(site.clone(), config.mailbox.clone());
        let (metrics, durations) = metrics::of(&site, &inbox, &retriever, &config.data);
        let readiness = ready::readiness(site.database.clone());
        Ok(Self {
            config,
            settings,
            reload: None,
            site,
            delivery,
            inbox,
            token,
            readiness,
            metrics,
            durations,
            background,
            retriever,
            registrations,
            records,
        })
    }

    /// Takes up changes of `source`; `keys` is what it said when the node was started.
    pub(crate) fn reloaded_from(
        &mut self,
        source: Arc<dyn ConfigSource<NodeConfig>>,
        keys: &toml::Table,
        certificate: Option<Certificate>,
    ) -> Arc<dyn Reload> {
        let changes = Changes {
            settings: self.settings.clone(),
            relays: self.site.relays.clone(),
            mailbox: self.registrations.terms(),
        };
        let reloader = Reloader::new(source, keys, RELOADED_KEYS, changes);
        let reload: Arc<dyn Reload> =
            Arc::new(reloader.with_certificate("inbound.tls", certificate));
        self.reload = Some(reload.clone());
        reload
    }

    /// Its doors; to be called once.
    pub fn doors(&self) -> Doors {
        let admin = AdminState {
            site: self.site.clone(),
            delivery: self.delivery.clone(),
            inbox: self.inbox.clone(),
            retriever: self.retriever.clone(),
            registrations: self.registrations.clone(),
            readiness: self.readiness.clone(),
            reload: self.reload.clone(),
        };
        let outbound = OutboundSettings {
            secret: self.config.outbound.secret.clone(),
            delivery: self.delivery.clone(),
            background: self.background.clone(),
        };
        let admins = self.config.admin.matrix_admins.clone();
        let matrix_tokens = MatrixTokens::new(self.site.clone(), admins);
        let front = if self.config.inbound.tls.is_some() { Front::Tls } else { Front::Proxy };
        let door = DoorSettings {
            front,
            paths: self.config.inbound.paths.clone(),
            destination: DestinationRule::of(&self.config.federation),
        };
        Doors {
            outbound: timed(
                outbound::router(self.site.clone(), outbound),
                &self.durations,
                "outbound",
            ),
            inbound: timed(
                inbound::router(self.site.clone(), door, self.inbox.clone()),
                &self.durations,
                "inbound",
            ),
            admin: admin::door(admin, self.metrics.clone(), self.token.clone())
                .router_admitting(Some(Arc::new(matrix_tokens))),
        }
    }

    /// Collects and delivers until `shutdown`, and `serve` as well, which keeps the doors open meanwhile; then lets what
    /// is under way finish.
    pub async fn run(self, serve: impl Future<Output = ()>, shutdown: CancellationToken) {
        let Self { settings, site, inbox, background, retriever, .. } = self;
        let tasks = TaskTracker::new();
        tasks.spawn(inbox::run(inbox.clone(), shutdown.clone()));
        let outbox = Outbox::new(site.clone(), self.delivery, settings.outbox);
        tasks.spawn(outbox::run(outbox, shutdown.clone()));
        tasks.spawn(self.registrations.run(shutdown.clone()));
        tasks.spawn(self.records.run(shutdown.clone()));
        tasks.spawn(own_record::publish::run(site.clone(), shutdown.clone()));
        let comebacks = retriever.comebacks().clone();
        tasks.spawn(waking::run(
            site.clone(),
            inbox.clone(),
            settings.wakes,
            comebacks,
            shutdown.clone(),
        ));
        tasks.spawn(retriever::run(site, inbox, settings.collect, retriever, shutdown));
        tasks.close();
        tokio::join!(serve, tasks.wait());
        background.stop(BACKGROUND_DRAIN).await;
    }
}

fn timed(router: Router, durations: &RequestDurations, door: &'static str) -> Router {
    router.layer(middleware::from_fn_with_state(durations.at(door), RequestDurations::measure))
}

async fn open_site(
    config: &NodeConfig,
    settings: &Settings,
    parts: ServiceParts,
    background: &Background,
) -> Result<Site, StoreError> {
    let ServiceParts { identity, exchange, database, clock, dice, .. } = parts;
    let homeserver = Homeserver::over(identity.clone(), parts.homeserver);
    let keys = KeyRing::new(KeyRingParts {
        identity: identity.clone(),
        exchange: exchange.clone(),
        store: parts.key_store,
        clock: clock.clone(),
        notaries: config.keys.notaries(),
        vouchers: vec![Arc::new(homeserver.clone())],
    });
    let own_keys =
        OwnKeys::open(identity.clone(), homeserver.clone(), database.clone(), clock.clone());
    let destinations = Destinations::open(DestinationParts {
        exchange: exchange.clone(),
        database: database.clone(),
        clock: clock.clone(),
        background: background.clone(),
        policy: settings.offline.clone(),
    });
    let stand_in = StandIn::new(database.clone(), homeserver.clone(), clock.clone());
    let file = config.records.well_known_file.clone();
    Ok(Site {
        own_record: OwnRecord::new(identity.clone(), database.clone(), file),
        hearsay: Hearsay::new(clock.clone()),
        stand_in,
        counted: Default::default(),
        bells: Arc::default(),
        passed: Passed::new(database.clone(), clock.clone()),
        identity,
        homeserver,
        exchange,
        keys: Arc::new(keys),
        witness: Arc::default(),
        own_keys: Arc::new(own_keys.await?.signed_by_others(parts.other_keys)),
        relays: RelayBook::open(database.clone(), config.server_name.clone(), configured(config))
            .await?,
        destinations: destinations.await?,
        database,
        clock,
        dice,
    })
}
