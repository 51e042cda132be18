//! The end of an envelope's way: taken, stored, left out or parked, and what its origin is to hear of it.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::receipts_due::{self, Ended};
use super::super::seen::TransactionKey;
use super::{advance_past, count, server_name, unsigned};
use crate::inbox::mail::StreamPlace;
use crate::inbox::readiness::RoomEvent;

/// What becomes of an envelope that the homeserver answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Taken, with these fingerprints of its EDUs; its events are to be confirmed.
    Delivered(Vec<u8>),
    /// Taken, with these fingerprints of its EDUs, and there is nothing to be confirmed: the payload goes.
    DeliveredWhole(Vec<u8>),
    /// Stored: the payload goes.
    Confirmed,
    /// Left out, because another body under the same id holds all of it: the payload goes.
    Superseded,
    /// Kept, with the reason.
    Parked(String),
}

/// What a row said when it was settled; nothing if it was gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SettledRow {
    /// Bytes that it took.
    pub(crate) bytes: u64,
    /// Its transaction id.
    pub(crate) txn_id: String,
    /// The id by which its sender's logs name it.
    pub(crate) request_id: Option<String>,
}

/// An envelope that is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settling {
    /// Its row.
    pub(crate) id: i64,
    /// Its origin.
    pub(crate) origin: ServerName,
    /// Its place, if that is to be done with.
    pub(crate) place: Option<StreamPlace>,
    /// Its events, of which its origin hears.
    pub(crate) events: Vec<RoomEvent>,
}

/// Settles an envelope and its place in its stream. When it has ended and its origin has a node, that this is confirmed is
/// queued in the same commit.
pub(crate) async fn settle(
    database: &Database,
    Settling { id, origin, place, events }: Settling,
    settled: Settled,
    now: Timestamp,
) -> Result<SettledRow, StoreError> {
    database
        .write(move |connection| {
            advance_past(connection, &origin, place.as_ref(), now)?;
            let sql = "SELECT bytes, txn_id, request_id FROM inbox WHERE id = ?1";
            let read = |row: &Row<'_>| {
                let (txn_id, request_id) = (row.get(1)?, row.get(2)?);
                Ok(SettledRow { bytes: unsigned(row, 0)?, txn_id, request_id })
            };
            let row = connection.query_row(sql, [id], read).optional()?;
            confirm(connection, id, &settled, &events, now)?;
            let update = "UPDATE inbox SET state = ?2, reason = ?3 WHERE id = ?1";
            match &settled {
                Settled::Delivered(edus) => {
                    note_edus(connection, id, edus)?;
                    connection.execute(update, params![id, "delivered", None::<String>])?;
                }
                Settled::Parked(reason) => {
                    connection.execute(update, params![id, "parked", reason])?;
                    count(connection, "parked", 1)?;
                }
                Settled::Superseded => {
                    let sql = "UPDATE seen SET is_superseded = 1 WHERE (origin, txn_id, sha256) =
                               (SELECT origin, txn_id, sha256 FROM inbox WHERE id = ?1)";
                    connection.execute(sql, [id])?;
                    connection.execute("DELETE FROM inbox WHERE id = ?1", [id])?;
                    count(connection, "confirmed", 1)?;
                }
                Settled::DeliveredWhole(edus) => {
                    note_edus(connection, id, edus)?;
                    connection.execute("DELETE FROM inbox WHERE id = ?1", [id])?;
                    count(connection, "confirmed", 1)?;
                }
                Settled::Confirmed => {
                    connection.execute("DELETE FROM inbox WHERE id = ?1", [id])?;
                    count(connection, "confirmed", 1)?;
                }
            }
            Ok(row.unwrap_or_default())
        })
        .await
}

/// Queues the confirmation of an envelope that ends so, if its origin has a node.
fn confirm(
    connection: &Connection,
    id: i64,
    settled: &Settled,
    events: &[RoomEvent],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let outcome = match settled {
        Settled::Delivered(_) => return Ok(()),
        Settled::DeliveredWhole(_) | Settled::Confirmed | Settled::Superseded => Ended::Delivered,
        Settled::Parked(_) => Ended::Parked,
    };
    let sql =
        "SELECT origin, txn_id, sha256, source FROM inbox WHERE id = ?1 AND stream IS NOT NULL";
    let from = |row: &Row<'_>| {
        let key = TransactionKey {
            origin: server_name(row, 0)?,
            txn_id: row.get(1)?,
            sha256: row.get(2)?,
        };
        Ok((key, row.get::<_, String>(3)?))
    };
    match connection.prepare_cached(sql)?.query_row([id], from).optional()? {
        Some((key, source)) => {
            receipts_due::ended(connection, (&key, &source), outcome, events, now)
        }
        None => Ok(()),
    }
}

fn note_edus(connection: &Connection, id: i64, edus: &[u8]) -> rusqlite::Result<()> {
    let sql = "UPDATE seen SET edus = ?2 WHERE (origin, txn_id, sha256) =
               (SELECT origin, txn_id, sha256 FROM inbox WHERE id = ?1)";
    connection.prepare_cached(sql)?.execute(params![id, edus]).map(drop)
}
