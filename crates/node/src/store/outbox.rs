//! Copies of what was left with relays, until it is known to have arrived.

pub(crate) mod audit;
mod confirmed;
pub(crate) mod overview;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::DeliveryReceipt;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::inbox::{server_name, time, unsigned};
use super::ledger::Transaction;
use super::number;
use super::seen::millis;
use crate::delivery::ledger::Place;
use crate::outbox::KeptCopy;

pub(crate) use confirmed::ErrorSummary;
pub(in crate::store) use confirmed::confirm;

/// Copies that one step of removing what is too old takes, so that other writes need not wait long.
const EXPIRY_STEP: u32 = 200;

/// A copy that is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// It.
    pub(crate) copy: KeptCopy,
    /// Bytes of all copies; beyond them the oldest go.
    pub(crate) bytes_max: u64,
}

/// What waits for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The destination.
    pub(crate) destination: ServerName,
    /// When the oldest was left.
    pub(crate) oldest_at: Timestamp,
    /// Of how many no relay is known to hold them, or their recipient says that they never came.
    pub(crate) wanted: u64,
}

/// A copy with its place.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// What identifies it.
    pub(crate) transaction: Transaction,
    /// Its place in the stream.
    pub(crate) place: Place,
    /// It.
    pub(crate) copy: KeptCopy,
}

/// Keeps the copy of what `relay` took just now, the first whose word counts, unless it has arrived. The oldest copies make
/// room.
pub(super) fn keep(
    connection: &Connection,
    (destination, seq): (&ServerName, u64),
    relay: &ServerName,
    Kept { copy, bytes_max }: &Kept,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO kept_copies (destination, seq, target, authorization, content, sha256, kept_at)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE
               EXISTS (SELECT 1 FROM ledger WHERE destination = ?1 AND seq = ?2
                       AND delivered_at IS NULL AND confirmed_at IS NULL)
               AND NOT EXISTS (SELECT 1 FROM ledger_holders AS other WHERE destination = ?1 AND seq = ?2 AND relay <> ?8
                               AND NOT EXISTS (SELECT 1 FROM distrusted_relays AS distrusted
                                               WHERE distrusted.destination = ?1 AND distrusted.relay = other.relay))";
    let KeptCopy { target, authorization, compressed, sha256 } = copy;
    let (name, seq) = (destination.as_str(), number(seq));
    let (at, relay) = (millis(now), relay.as_str());
    let row = params![name, seq, target, authorization, compressed, sha256, at, relay];
    connection.prepare_cached(sql)?.execute(row)?;
    let found = "UPDATE kept_copies SET wanted_at = NULL WHERE destination = ?1 AND seq = ?2";
    connection.prepare_cached(found)?.execute(params![name, seq])?;
    while total(connection, "copy_bytes")? > *bytes_max {
        let sql = "DELETE FROM kept_copies WHERE id = (SELECT min(id) FROM kept_copies)";
        if connection.prepare_cached(sql)?.execute([])? == 0 {
            break;
        }
        count(connection, "copies_dropped", 1)?;
    }
    Ok(())
}

/// The destination itself took it: the copy, if there is one, goes.
pub(super) fn arrived_directly(
    connection: &Connection,
    destination: &ServerName,
    seq: u64,
) -> rusqlite::Result<()> {
    if drop_copy(connection, destination, number(seq))? {
        count(connection, "sent_directly", 1)?;
    }
    Ok(())
}

fn drop_copy(
    connection: &Connection,
    destination: &ServerName,
    seq: i64,
) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM kept_copies WHERE destination = ?1 AND seq = ?2";
    Ok(connection.prepare_cached(sql)?.execute(params![destination.as_str(), seq])? > 0)
}

pub(super) fn count(connection: &Connection, name: &str, more: usize) -> rusqlite::Result<()> {
    if more == 0 {
        // Else each look at what is too old would be a write that has to reach the disk.
        return Ok(());
    }
    let sql = "UPDATE outbox_totals SET value = value + ?2 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute(params![name, number(more as u64)]).map(drop)
}

fn total(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM outbox_totals WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name], |row| unsigned(row, 0))
}

/// What waits, by destination; without what its destination refused.
pub(crate) async fn waiting(database: &Database) -> Result<Vec<Waiting>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT destination, min(kept_at), count(wanted_at) FROM kept_copies
                       WHERE refused IS NULL GROUP BY destination";
            let waiting = |row: &Row<'_>| {
                Ok(Waiting {
                    destination: server_name(row, 0)?,
                    oldest_at: time(row, 1)?,
                    wanted: unsigned(row, 2)?,
                })
            };
            connection.prepare_cached(sql)?.query_map([], waiting)?.collect()
        })
        .await
}

/// The numbers of the first `limit` copies for `destination` that are wanted, or were left at `left_by` or before.
pub(crate) async fn due(
    database: &Database,
    destination: ServerName,
    left_by: Option<Timestamp>,
    limit: u32,
) -> Result<Vec<u64>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT seq FROM kept_copies WHERE destination = ?1 AND refused IS NULL
                       AND (wanted_at IS NOT NULL OR kept_at <= ?2) ORDER BY seq LIMIT ?3";
            let left_by = left_by.map_or(-1, millis);
            let row = params![destination.as_str(), left_by, limit];
            connection.prepare_cached(sql)?.query_map(row, |row| unsigned(row, 0))?.collect()
        })
        .await
}

/// A copy with its place; `None` if it is gone.
pub(crate) async fn load(
    database: &Database,
    destination: ServerName,
    seq: u64,
) -> Result<Option<Left>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT txn_id, content_sha256, first_at, target, authorization, content, sha256
                       FROM kept_copies JOIN ledger USING (destination, seq)
                       WHERE destination = ?1 AND seq = ?2";
            let left = |row: &Row<'_>| {
                Ok(Left {
                    transaction: Transaction {
                        destination: destination.clone(),
                        txn_id: row.get(0)?,
                        content_sha256: row.get(1)?,
                    },
                    place: Place { seq, first_at: time(row, 2)? },
                    copy: KeptCopy {
                        target: row.get(3)?,
                        authorization: row.get(4)?,
                        compressed: row.get(5)?,
                        sha256: row.get(6)?,
                    },
                })
            };
            let row = params![destination.as_str(), number(seq)];
            connection.prepare_cached(sql)?.query_row(row, left).optional()
        })
        .await
}

/// The destination itself would not take the copy, or it can't be read any longer: it is not sent again.
pub(crate) async fn refused(
    database: &Database,
    destination: ServerName,
    seq: u64,
    reason: String,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE kept_copies SET refused = ?3 WHERE destination = ?1 AND seq = ?2";
            let row = params![destination.as_str(), number(seq), reason];
            connection.prepare_cached(sql)?.execute(row).map(drop)
        })
        .await
}

/// Lets go of copies that were left before `before`, one step of it; how many.
pub(crate) async fn expire(database: &Database, before: Timestamp) -> Result<usize, StoreError> {
    database
        .write(move |connection| {
            // Copies take ids in the order of time, so that the oldest are found without a look at the others.
            let sql = "DELETE FROM kept_copies WHERE kept_at < ?1 AND id IN
                       (SELECT id FROM kept_copies ORDER BY id LIMIT ?2)";
            let row = params![millis(before), EXPIRY_STEP];
            let expired = connection.prepare_cached(sql)?.execute(row)?;
            count(connection, "copies_expired", expired)?;
            Ok(expired)
        })
        .await
}

/// Counts what was left again.
pub(crate) async fn left_again(database: &Database) -> Result<(), StoreError> {
    database.write(|connection| count(connection, "left_again", 1)).await
}

/// Enters what `from` said of mail that was for it; durable on return.
pub(crate) async fn told(
    database: &Database,
    from: ServerName,
    receipts: Vec<DeliveryReceipt>,
    now: Timestamp,
) -> Result<(), StoreError> {
    database.write(move |connection| confirm(connection, &from, &receipts, now)).await
}
