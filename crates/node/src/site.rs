//! What every part of a node shares: who we are, how to reach others, what is kept.

use std::sync::Arc;

use restante_federation::{Exchange, Identity, KeyRing};
use restante_federation_proto::{Clock, Dice, ServerName};
use restante_sqlite::Database;

use crate::destinations::Destinations;
use crate::homeserver::Homeserver;
use crate::metrics::Counted;
use crate::outbox::Bells;
use crate::own_keys::OwnKeys;
use crate::own_record::OwnRecord;
use crate::passed::Passed;
use crate::relay_book::RelayBook;
use crate::relay_records::hearsay::Hearsay;
use crate::stand_in::StandIn;
use crate::witness::Witness;

/// Shared parts of one node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Site {
    /// The homeserver's name and key.
    pub(crate) identity: Identity,
    /// The own homeserver.
    pub(crate) homeserver: Homeserver,
    /// How to reach other servers.
    pub(crate) exchange: Arc<dyn Exchange>,
    /// Other servers' keys.
    pub(crate) keys: Arc<KeyRing>,
    /// Who speaks for keys that nobody else vouches for.
    pub(crate) witness: Arc<Witness>,
    /// The own key document.
    pub(crate) own_keys: Arc<OwnKeys>,
    /// The node's state.
    pub(crate) database: Database,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Chance.
    pub(crate) dice: Arc<dyn Dice>,
    /// Who holds whose mail.
    pub(crate) relays: RelayBook,
    /// Our own relay record.
    pub(crate) own_record: OwnRecord,
    /// Where it is told what is heard of others' relays.
    pub(crate) hearsay: Hearsay,
    /// Which destinations are assumed offline.
    pub(crate) destinations: Destinations,
    /// Which events are at which destination.
    pub(crate) passed: Passed,
    /// Events that are held for the homeserver.
    pub(crate) stand_in: StandIn,
    /// What wakes the outbox.
    pub(crate) bells: Arc<Bells>,
    /// What it has done.
    pub(crate) counted: Counted,
}

impl Site {
    /// The homeserver's name.
    pub(crate) fn server_name(&self) -> &ServerName {
        &self.identity.server_name
    }
}
