//! Answers the homeserver's questions to a server that is offline from events that are held here.
//!
//! A gap is answered whole or not at all: a part of one leaves marks in a Synapse that later complete answers do not
//! heal, while an empty list leaves none.

mod gap;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use restante_federation_proto::{Clock, Timestamp};
use restante_sqlite::{Database, StoreError};

use crate::homeserver::{Homeserver, Presence};
use crate::store::held;
pub(crate) use crate::store::held::{HeldEvent, HeldSource, Noted};
use gap::gap;

/// Events of one gap: a Synapse was seen to take 294 at once, and a capsule holds 1,000.
const GAP_EVENTS_MAX: usize = 1000;

/// Bytes of one gap; a homeserver reads answers of some megabytes.
const GAP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Events behind a gap of which the homeserver is asked whether it has them; at its pace they take three seconds.
const BOUNDARY_MAX: usize = 20;

/// Events that are held for the homeserver. Clones share them.
#[derive(Clone)]
pub(crate) struct StandIn {
    database: Database,
    homeserver: Homeserver,
    clock: Arc<dyn Clock>,
}

impl StandIn {
    /// Over the node's database.
    pub(crate) fn new(database: Database, homeserver: Homeserver, clock: Arc<dyn Clock>) -> Self {
        Self { database, homeserver, clock }
    }

    /// Holds `events`, all or none; durable on return. What is to be found by a question for the predecessors of an
    /// event must include that event.
    pub(crate) async fn note(&self, events: Vec<HeldEvent>) -> Result<Noted, StoreError> {
        held::note(&self.database, events, self.now()).await
    }

    /// Forgets events of capsules that are too old for anybody to ask for them.
    pub(crate) async fn prune(&self, now: Timestamp) -> Result<(), StoreError> {
        while held::prune(&self.database, now).await? > 0 {}
        Ok(())
    }

    /// Lets go of events that are in the homeserver, or parked.
    pub(crate) async fn forget(
        &self,
        room_id: String,
        event_ids: Vec<String>,
    ) -> Result<(), StoreError> {
        held::forget(&self.database, room_id, event_ids).await
    }

    /// One held event.
    pub(crate) async fn event(&self, event_id: &str) -> Option<HeldEvent> {
        let found = held::event(&self.database, event_id.to_owned()).await;
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "held events can't be read");
            None
        })
    }

    /// Every event between what the homeserver has and `latest`, oldest first, without `latest` itself. `None` unless
    /// all of them are held: each predecessor of each is among them, in `earliest`, or in the homeserver.
    pub(crate) async fn whole_gap(
        &self,
        room_id: &str,
        earliest: &[String],
        latest: &[String],
    ) -> Option<Vec<Bytes>> {
        let known: BTreeSet<String> = earliest.iter().cloned().collect();
        let held = held::reachable(
            &self.database,
            room_id.to_owned(),
            known.clone(),
            latest.to_vec(),
            GAP_EVENTS_MAX + latest.len(),
        );
        let mut held = match held.await {
            Ok(held) => held?,
            Err(error) => {
                tracing::error!(%error, "held events can't be read");
                return None;
            }
        };
        let gap = gap(&held, &known, latest)?;
        if gap.boundary.len() > BOUNDARY_MAX || !self.has_all(room_id, &gap.boundary).await {
            return None;
        }
        let pdus: Vec<Bytes> =
            gap.events.iter().filter_map(|id| held.remove(id)).map(|event| event.pdu).collect();
        let bytes: usize = pdus.iter().map(Bytes::len).sum();
        (bytes <= GAP_BYTES_MAX).then_some(pdus)
    }

    async fn has_all(&self, room_id: &str, event_ids: &BTreeSet<String>) -> bool {
        for event_id in event_ids {
            match self.homeserver.state_ids(room_id, event_id).await {
                Ok(Presence::Present) => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
