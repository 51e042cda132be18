//! What every handler of a relay shares.

use std::sync::Arc;

use restante_federation::{Exchange, Identity, KeyRing};
use restante_federation_proto::{Clock, Dice, ServerName};
use restante_mailbox::MailboxStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::callers::Callers;
use crate::config::RelayConfig;
use crate::disk::DiskWatch;
use crate::memory::{Memory, Reading};
use crate::metrics::Counted;
use crate::onward::OnwardState;
use crate::own_key::OwnKey;
use crate::registrations::Registrations;
use crate::rules::{Rules, RulesInForce};
use crate::signed_at::Started;
use crate::stores::Stores;

/// Shared parts of one relay; cheap to clone.
#[derive(Clone)]
pub(crate) struct RelayState(Arc<Parts>);

/// See [`RelayState`].
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) own_key: OwnKey,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) store: Arc<dyn MailboxStore>,
    /// The same store, by what else it can do.
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Started,
    pub(crate) dice: Arc<dyn Dice>,
    pub(crate) rules: RulesInForce,
    pub(crate) admission: AdmissionState,
    pub(crate) arrivals: Arrivals,
    /// Whom mail is to be delivered to, and when.
    pub(crate) onward: OnwardState,
    /// How to reach other servers.
    pub(crate) exchange: Arc<dyn Exchange>,
    /// For monitors.
    pub(crate) counted: Counted,
    /// Of all requests under way.
    pub(crate) request_memory: Memory,
    /// Turns to read mail, until it is counted as an answer.
    pub(crate) reading: Reading,
    /// Of all answers that are not written yet.
    pub(crate) answer_memory: Memory,
    /// Deposits on their way into the store; they end there even if their caller hangs up.
    pub(crate) deposits: TaskTracker,
    /// Set when the relay stops, so that waiting collects are answered at once.
    pub(crate) shutdown: CancellationToken,
}

/// What admission goes by beside the rules.
pub(crate) struct AdmissionState {
    pub(crate) callers: Callers,
    pub(crate) registrations: Registrations,
    pub(crate) disk: DiskWatch,
}

impl RelayState {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The relay's name.
    pub(crate) fn server_name(&self) -> &ServerName {
        &self.identity.server_name
    }

    /// Requests that begin from here on go by `config`, as far as it can change while the relay runs.
    pub(crate) fn take_up(&self, config: &RelayConfig) {
        self.rules.replace(Rules::of(config));
        self.onward.reconfigured();
    }

    /// The rules that hold at present.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.current()
    }
}

impl std::ops::Deref for RelayState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
