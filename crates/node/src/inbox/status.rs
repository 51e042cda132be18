//! What the operator sees of the inbox.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;
use serde::Serialize;

use super::Inbox;
use crate::store::backlog;
use crate::store::holes::{self, Hole};
use crate::store::inbox as rows;

/// Envelopes that are listed; the oldest, as the others wait for them.
const LISTED_MAX: u32 = 200;

/// The inbox, in numbers and by envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InboxStatus {
    /// Envelopes that are not confirmed, oldest first.
    pub(crate) waiting: Vec<WaitingEnvelope>,
    /// Rooms whose events wait for earlier ones, longest first.
    pub(crate) backlog: Vec<BacklogRoom>,
    /// Numbers of streams that no relay gave, latest first.
    pub(crate) missing: Vec<MissingNumbers>,
    /// Envelopes by state.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Envelopes confirmed since the database was made.
    pub(crate) confirmed_total: u64,
    /// Envelopes parked since the database was made.
    pub(crate) parked_total: u64,
    /// Single events confirmed since the database was made.
    pub(crate) events_confirmed_total: u64,
    /// Single events parked since the database was made.
    pub(crate) events_parked_total: u64,
    /// Forged envelopes that made room for others.
    pub(crate) forged_dropped_total: u64,
    /// Envelopes and single events that nobody proved, and that were removed when they were too old.
    pub(crate) unproven_expired_total: u64,
    /// Envelopes that the operator dropped.
    pub(crate) dropped_total: u64,
}

/// One envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WaitingEnvelope {
    /// Who sent it.
    pub(crate) origin: ServerName,
    /// Its id.
    pub(crate) txn_id: String,
    /// Its number in its stream.
    pub(crate) seq: Option<u64>,
    /// Where it stands.
    pub(crate) state: &'static str,
    /// Why.
    pub(crate) reason: Option<String>,
    /// When it arrived.
    pub(crate) arrived_at: Timestamp,
}

/// Consecutive numbers of an origin's stream that never came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MissingNumbers {
    /// Whose.
    pub(crate) origin: ServerName,
    /// The first number.
    pub(crate) first: u64,
    /// The last number.
    pub(crate) last: u64,
    /// The relays that were asked for them.
    pub(crate) relays: String,
    /// When that was noticed.
    pub(crate) noticed_at: Timestamp,
}

/// One room whose events wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BacklogRoom {
    /// The room.
    pub(crate) room_id: String,
    /// Events that wait.
    pub(crate) waiting: u64,
    /// Events that the homeserver took and that are not confirmed.
    pub(crate) unconfirmed: u64,
    /// Since when.
    pub(crate) since: Timestamp,
    /// For what.
    pub(crate) reason: Option<String>,
}

impl Inbox {
    /// What the inbox holds.
    pub(crate) async fn status(&self) -> Result<InboxStatus, StoreError> {
        let shares = rows::shares(self.database()).await?;
        let (listed, totals) = rows::list(self.database(), LISTED_MAX).await?;
        let rooms = backlog::rooms(self.database(), LISTED_MAX).await?;
        let missing = holes::list(self.database(), LISTED_MAX).await?.into_iter().map(|hole| {
            let Hole { origin, first, last, relays, noticed_at, .. } = hole;
            MissingNumbers { origin, first, last, relays, noticed_at }
        });
        let missing = missing.collect();
        let mut counts = BTreeMap::new();
        for share in shares {
            *counts.entry(shown(&share.state).to_owned()).or_default() += share.count;
        }
        let events_parked = backlog::parked_count(self.database()).await?;
        if events_parked > 0 {
            counts.insert("parked_events".to_owned(), events_parked);
        }
        let total = |name: &str| {
            totals.iter().find(|(found, _)| found == name).map_or(0, |(_, value)| *value)
        };
        let state = self.state();
        let backlog = rooms.into_iter().map(|room| BacklogRoom {
            reason: state.backlog.reason(&room.room_id),
            room_id: room.room_id,
            waiting: room.waiting,
            unconfirmed: room.sent,
            since: room.since,
        });
        let backlog = backlog.collect();
        let waiting = listed.into_iter().map(|row| WaitingEnvelope {
            state: if state.delivering.contains(&row.id) {
                "delivering"
            } else {
                shown(&row.state)
            },
            origin: row.origin,
            txn_id: row.txn_id,
            seq: row.seq,
            reason: row.reason,
            arrived_at: row.arrived_at,
        });
        Ok(InboxStatus {
            waiting: waiting.collect(),
            backlog,
            missing,
            counts,
            confirmed_total: total("confirmed"),
            parked_total: total("parked"),
            events_confirmed_total: total("events_confirmed"),
            events_parked_total: total("events_parked"),
            forged_dropped_total: total("forged_dropped"),
            unproven_expired_total: total("unproven_expired"),
            dropped_total: total("dropped"),
        })
    }
}

/// The state as the operator reads it.
fn shown(state: &str) -> &'static str {
    match state {
        "waiting" => "waiting",
        "unverified" => "unverified_first_contact",
        "delivered" => "delivered_unconfirmed",
        _ => "parked",
    }
}
