//! A relay without a listener: its routes, and the work that goes on behind them.
//!
//! [`crate::Relay`] opens the files that a configuration names, and binds an address; a simulation brings its own
//! network, store and clock.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use restante_federation::{Exchange, Identity, KeyRing, KeyRingParts, KeyStore};
use restante_federation_proto::{Clock, ServerName};
use restante_mailbox::{EnvelopeAge, MailboxLimits, MailboxStore, Quotas};
use restante_relay_api::limits::AHEAD_MAX;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::config::RelayConfig;
use crate::expiry;
use crate::memory::Memory;
use crate::own_key::OwnKey;
use crate::router::router;
use crate::state::{DestinationRule, Parts, RelayState, Rules};

/// What a relay works with.
pub struct ServiceParts {
    /// The relay's name and key.
    pub identity: Identity,
    /// How to reach other servers, for their keys.
    pub exchange: Arc<dyn Exchange>,
    /// Believed keys.
    pub key_store: Arc<dyn KeyStore>,
    /// The mailboxes.
    pub store: Arc<dyn MailboxStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A relay without a listener.
pub struct Service {
    state: RelayState,
    time_to_live: Duration,
}

impl Service {
    /// A relay with these parts. Of `config`, files and addresses are left alone. `shutdown` ends what waits.
    pub fn new(config: &RelayConfig, parts: ServiceParts, shutdown: CancellationToken) -> Self {
        let ServiceParts { identity, exchange, key_store, store, clock } = parts;
        let keys = Arc::new(KeyRing::new(KeyRingParts {
            identity: identity.clone(),
            exchange,
            store: key_store,
            clock: clock.clone(),
            notaries: config.keys.notaries(),
            vouchers: Vec::new(),
        }));
        let state = RelayState::new(Parts {
            own_key: OwnKey::new(identity.clone()),
            identity,
            keys,
            store,
            clock,
            arrivals: Arrivals::new(config.limits.waiting_collects_max),
            rules: rules(config),
            request_memory: Memory::new(),
            answer_memory: Memory::new(),
            deposits: TaskTracker::new(),
            shutdown,
        });
        Self { state, time_to_live: config.mailbox.time_to_live.0 }
    }

    /// The relay's name.
    pub fn server_name(&self) -> &ServerName {
        self.state.server_name()
    }

    /// All routes.
    pub fn routes(&self) -> Router {
        router(self.state.clone())
    }

    /// Lets mail expire until shutdown, and `serve` as well, which answers requests meanwhile; then lets deposits under
    /// way finish.
    pub async fn run(self, serve: impl Future<Output = ()>) {
        let tasks = TaskTracker::new();
        let (store, clock) = (self.state.store.clone(), self.state.clock.clone());
        tasks.spawn(expiry::run(store, clock, self.time_to_live, self.state.shutdown.clone()));
        tasks.close();
        serve.await;
        self.state.deposits.close();
        self.state.deposits.wait().await;
        tasks.wait().await;
    }
}

fn rules(config: &RelayConfig) -> Rules {
    let destination = if config.federation.require_destination {
        DestinationRule::Required
    } else {
        DestinationRule::Optional
    };
    let age = EnvelopeAge { time_to_live: config.mailbox.time_to_live.0, ahead_max: AHEAD_MAX };
    let quotas = Quotas::of_mailboxes(MailboxLimits {
        envelopes_max: config.mailbox.envelopes_max,
        bytes_max: config.mailbox.bytes_max,
    });
    Rules { body_bytes_max: config.limits.body_bytes_max, age, quotas, destination }
}
