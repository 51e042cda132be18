//! What arrived before, and how far each stream is done with.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::{MEMORY_BEYOND_TIME_TO_LIVE, TIME_TO_LIVE};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, params};

use super::number;

/// How long a transaction is remembered: a relay may hold it for the time to live.
pub(crate) const REMEMBERED: Duration = TIME_TO_LIVE.saturating_add(MEMORY_BEYOND_TIME_TO_LIVE);

/// Rows that one step of pruning removes, so that other writes need not wait long.
const PRUNE_STEP: u32 = 500;

/// In the column `is_superseded`, whose first meaning is 1: the transaction went straight to the homeserver.
const PASSED: i64 = 2;

/// Likewise: it went straight to the homeserver, and a relay's copy of it was taken in as well.
const PASSED_AND_COPIED: i64 = 3;

/// What tells one transaction from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TransactionKey {
    /// Who signed it.
    pub(crate) origin: ServerName,
    /// Its id.
    pub(crate) txn_id: String,
    /// SHA-256 of its canonical content.
    pub(crate) sha256: [u8; 32],
}

/// Remembers a transaction; `false` if it was seen before.
pub(super) fn remember(
    connection: &Connection,
    key: &TransactionKey,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let sql =
        "INSERT OR IGNORE INTO seen (origin, txn_id, sha256, seen_at) VALUES (?1, ?2, ?3, ?4)";
    let added = connection.prepare_cached(sql)?.execute(params![
        key.origin.as_str(),
        key.txn_id,
        key.sha256,
        millis(now)
    ])?;
    Ok(added > 0)
}

/// Whether a transaction was seen before.
pub(super) fn contains(connection: &Connection, key: &TransactionKey) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM seen WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3";
    connection.prepare_cached(sql)?.exists(params![key.origin.as_str(), key.txn_id, key.sha256])
}

/// Takes in a relay's copy of what went straight to the homeserver, which may have dropped it; `true` for the first.
pub(super) fn take_copy(connection: &Connection, key: &TransactionKey) -> rusqlite::Result<bool> {
    let sql = "UPDATE seen SET is_superseded = ?4 WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3
               AND is_superseded = ?5";
    let (origin, txn_id) = (key.origin.as_str(), &key.txn_id);
    let row = params![origin, txn_id, key.sha256, PASSED_AND_COPIED, PASSED];
    Ok(connection.prepare_cached(sql)?.execute(row)? > 0)
}

/// Whether the row `id` of the inbox is the copy of what went straight to the homeserver.
pub(super) fn is_copy(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM seen WHERE is_superseded = ?2 AND (origin, txn_id, sha256) =
               (SELECT origin, txn_id, sha256 FROM inbox WHERE id = ?1)";
    connection.prepare_cached(sql)?.exists(params![id, PASSED_AND_COPIED])
}

/// Notes that `seq` of a stream is done with.
pub(super) fn advance(
    connection: &Connection,
    origin: &ServerName,
    stream: &str,
    seq: u64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    super::holes::fill(connection, origin, stream, seq)?;
    let sql = "INSERT INTO streams (origin, stream, done_through, changed_at) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (origin, stream) DO UPDATE SET
               done_through = max(done_through, excluded.done_through), changed_at = excluded.changed_at";
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    connection
        .prepare_cached(sql)?
        .execute(params![origin.as_str(), stream, seq, millis(now)])
        .map(drop)
}

/// The highest number of a stream that is done with; `None` before the first.
pub(crate) async fn done_through(
    database: &Database,
    origin: ServerName,
    stream: String,
) -> Result<Option<u64>, StoreError> {
    let done: Option<i64> = database
        .read(move |connection| {
            let sql = "SELECT done_through FROM streams WHERE origin = ?1 AND stream = ?2";
            connection
                .prepare_cached(sql)?
                .query_row([origin.as_str(), &stream], |row| row.get(0))
                .optional()
        })
        .await?;
    Ok(done.and_then(|done| u64::try_from(done).ok()))
}

/// Notes a transaction that went straight to the homeserver, with its EDUs' fingerprints.
pub(crate) async fn passed(
    database: &Database,
    key: TransactionKey,
    (stream, seq): (String, u64),
    edus: Vec<u8>,
    now: Timestamp,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            if remember(connection, &key, now)? {
                let sql = "UPDATE seen SET is_superseded = ?4
                           WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3";
                let row = params![key.origin.as_str(), key.txn_id, key.sha256, PASSED];
                connection.prepare_cached(sql)?.execute(row)?;
            }
            let sql = "UPDATE seen SET edus = ?4 WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3";
            let row = params![key.origin.as_str(), key.txn_id, key.sha256, edus];
            connection.prepare_cached(sql)?.execute(row)?;
            advance(connection, &key.origin, &stream, seq, now)
        })
        .await
}

/// Forgets what no relay may hold any longer, one step of it; whether there is more.
pub(crate) async fn prune(database: &Database, now: Timestamp) -> Result<bool, StoreError> {
    let before = millis(now.before(REMEMBERED));
    database
        .write(move |connection| {
            let seen = "DELETE FROM seen WHERE (origin, txn_id, sha256) IN
                        (SELECT origin, txn_id, sha256 FROM seen WHERE seen_at < ?1 LIMIT ?2)";
            let streams = "DELETE FROM streams WHERE (origin, stream) IN
                           (SELECT origin, stream FROM streams WHERE changed_at < ?1 LIMIT ?2)";
            let seen = connection.execute(seen, params![before, PRUNE_STEP])?;
            let streams = connection.execute(streams, params![before, PRUNE_STEP])?;
            Ok(seen.max(streams) == PRUNE_STEP as usize)
        })
        .await
}

/// Milliseconds as SQLite keeps them.
pub(in crate::store) fn millis(at: Timestamp) -> i64 {
    number(at.as_millis())
}
