//! Relays that did not keep what they took, by the destination whose mail it was: what a stranger's record names says
//! nothing of the relay that has the name elsewhere.

use std::collections::BTreeSet;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::inbox::{server_name, time};
use super::seen::millis;
use crate::outbox::trust::{Judgement, forgotten_before, judge};

/// A transaction that a relay lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Whose mail it was.
    pub(crate) destination: ServerName,
    /// The relay.
    pub(crate) relay: ServerName,
    /// Its id.
    pub(crate) txn_id: String,
    /// When the relay took it.
    pub(crate) left_at: Timestamp,
    /// How that is known.
    pub(crate) evidence: &'static str,
}

/// A relay whose word does not count for one destination's mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Distrusted {
    /// Whose mail.
    pub(crate) destination: ServerName,
    /// The relay.
    pub(crate) relay: ServerName,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Why.
    pub(crate) reason: String,
}

/// Enters a loss, and what follows from it.
pub(super) fn lost(
    connection: &Connection,
    loss: &Loss,
    now: Timestamp,
) -> rusqlite::Result<Judgement> {
    let Loss { destination, relay, txn_id, left_at, evidence } = loss;
    let pair = params![destination.as_str(), relay.as_str()];
    let sql = "SELECT struck_at FROM relay_strikes WHERE destination = ?1 AND relay = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let earlier = statement.query_map(pair, |row| time(row, 0))?;
    let earlier = earlier.collect::<rusqlite::Result<Vec<_>>>()?;
    let judgement = judge(&earlier, *left_at, now);
    if judgement == Judgement::SameIncident {
        return Ok(judgement);
    }
    let forget =
        "DELETE FROM relay_strikes WHERE destination = ?1 AND relay = ?2 AND struck_at < ?3";
    let before = millis(forgotten_before(now));
    connection.prepare_cached(forget)?.execute(params![
        destination.as_str(),
        relay.as_str(),
        before
    ])?;
    let sql = "INSERT INTO relay_strikes (destination, relay, struck_at, txn_id, evidence) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![destination.as_str(), relay.as_str(), millis(now), txn_id, evidence];
    connection.prepare_cached(sql)?.execute(row)?;
    if judgement == Judgement::Distrusted {
        let sql = "INSERT OR IGNORE INTO distrusted_relays (destination, relay, since, reason) VALUES (?1, ?2, ?3, ?4)";
        let row = params![destination.as_str(), relay.as_str(), millis(now), evidence];
        connection.prepare_cached(sql)?.execute(row)?;
    }
    Ok(judgement)
}

/// `relay` brought this mail: its word counts again, if it took that after it ceased to.
pub(super) fn restore(
    connection: &Connection,
    (destination, seq): (&ServerName, i64),
    relay: &ServerName,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM distrusted_relays WHERE destination = ?1 AND relay = ?2 AND since <
               (SELECT since FROM ledger_holders WHERE destination = ?1 AND seq = ?3 AND relay = ?2)";
    let row = params![destination.as_str(), relay.as_str(), seq];
    if connection.prepare_cached(sql)?.execute(row)? == 0 {
        return Ok(());
    }
    tracing::info!(%destination, %relay, "mail arrived through the relay: its word counts again");
    let sql = "DELETE FROM relay_strikes WHERE destination = ?1 AND relay = ?2";
    connection.prepare_cached(sql)?.execute([destination.as_str(), relay.as_str()]).map(drop)
}

/// The relays whose word does not count for mail of `destination`.
pub(crate) async fn distrusted(
    database: &Database,
    destination: ServerName,
) -> Result<BTreeSet<ServerName>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT relay FROM distrusted_relays WHERE destination = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let relays = statement.query_map([destination.as_str()], |row| server_name(row, 0))?;
            relays.collect()
        })
        .await
}

/// All of them, those of last time first.
pub(crate) async fn all(database: &Database) -> Result<Vec<Distrusted>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT destination, relay, since, reason FROM distrusted_relays
                       ORDER BY since DESC, destination, relay LIMIT 1000";
            let distrusted = |row: &Row<'_>| {
                Ok(Distrusted {
                    destination: server_name(row, 0)?,
                    relay: server_name(row, 1)?,
                    since: time(row, 2)?,
                    reason: row.get(3)?,
                })
            };
            connection.prepare_cached(sql)?.query_map([], distrusted)?.collect()
        })
        .await
}
