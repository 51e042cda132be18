//! What the operator sees of the inbox.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;
use serde::Serialize;

use super::Inbox;
use crate::store::inbox as rows;

/// Envelopes that are listed; the oldest, as the others wait for them.
const LISTED_MAX: u32 = 200;

/// The inbox, in numbers and by envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InboxStatus {
    /// Envelopes that are not confirmed, oldest first.
    pub(crate) waiting: Vec<WaitingEnvelope>,
    /// Envelopes by state.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Envelopes confirmed since the database was made.
    pub(crate) confirmed_total: u64,
    /// Envelopes parked since the database was made.
    pub(crate) parked_total: u64,
    /// Forged envelopes that made room for others.
    pub(crate) forged_dropped_total: u64,
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

impl Inbox {
    /// What the inbox holds.
    pub(crate) async fn status(&self) -> Result<InboxStatus, StoreError> {
        let shares = rows::shares(self.database()).await?;
        let (listed, totals) = rows::list(self.database(), LISTED_MAX).await?;
        let mut counts = BTreeMap::new();
        for share in shares {
            *counts.entry(shown(&share.state).to_owned()).or_default() += share.count;
        }
        let total = |name: &str| {
            totals.iter().find(|(found, _)| found == name).map_or(0, |(_, value)| *value)
        };
        let state = self.state();
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
            counts,
            confirmed_total: total("confirmed"),
            parked_total: total("parked"),
            forged_dropped_total: total("forged_dropped"),
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
