//! What every handler of a relay shares.

use std::sync::Arc;

use restante_federation::{Identity, KeyRing};
use restante_federation_proto::{Clock, ServerName};
use restante_mailbox::{EnvelopeAge, MailboxStore, Quotas};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::memory::Memory;
use crate::own_key::OwnKey;

/// Shared parts of one relay; cheap to clone.
#[derive(Clone)]
pub(crate) struct RelayState(Arc<Parts>);

/// See [`RelayState`].
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) own_key: OwnKey,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) store: Arc<dyn MailboxStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) arrivals: Arrivals,
    pub(crate) rules: Rules,
    /// Of all requests under way.
    pub(crate) request_memory: Memory,
    /// Of all answers that are not written yet.
    pub(crate) answer_memory: Memory,
    /// Deposits on their way into the store; they end there even if their caller hangs up.
    pub(crate) deposits: TaskTracker,
    /// Set when the relay stops, so that waiting collects are answered at once.
    pub(crate) shutdown: CancellationToken,
}

/// The operator's choices that handlers need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) body_bytes_max: usize,
    pub(crate) age: EnvelopeAge,
    pub(crate) quotas: Quotas,
    pub(crate) destination: DestinationRule,
}

/// What becomes of a request that does not name its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DestinationRule {
    /// Old servers leave it out: taken.
    Optional,
    /// Refused.
    Required,
}

impl RelayState {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The relay's name.
    pub(crate) fn server_name(&self) -> &ServerName {
        &self.identity.server_name
    }
}

impl std::ops::Deref for RelayState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
