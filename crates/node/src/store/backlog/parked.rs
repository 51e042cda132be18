//! Events that are parked, and that become so by their age.

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{OptionalExtension, params};

use super::count_parked;
use super::overview::{Share, share};
use crate::inbox::readiness::RoomEvent;
use crate::store::inbox::{EXPIRY_STEP, count, server_name, time, unsigned};
use crate::store::later_receipts;
use crate::store::seen::millis;

/// Parks what has waited since before `before`, one step of it; the rows.
pub(crate) async fn expire(
    database: &Database,
    before: Timestamp,
    reason: &'static str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE backlog SET state = 'parked', reason = ?1 WHERE id IN
                       (SELECT id FROM backlog WHERE state = 'waiting' AND arrived_at < ?2 LIMIT ?3)
                       RETURNING room_id, event_id";
            let row = params![reason, millis(before), EXPIRY_STEP];
            let mut statement = connection.prepare_cached(sql)?;
            let parked = statement.query_map(row, |row| Ok((row.get(0)?, row.get(1)?)))?;
            let parked = parked.collect::<rusqlite::Result<Vec<RoomEvent>>>()?;
            count_parked(connection, parked.len())?;
            for event in &parked {
                later_receipts::event_ended(connection, event, Some(reason), now)?;
            }
            Ok(parked.len())
        })
        .await
}

/// Removes what is parked, not proven and arrived before `before`, one step of it; what it took.
pub(crate) async fn expire_unproven(
    database: &Database,
    before: Timestamp,
) -> Result<Vec<Share>, StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM backlog WHERE id IN (SELECT id FROM backlog
                       WHERE state = 'parked' AND NOT is_proven AND arrived_at < ?1 LIMIT ?2)
                       RETURNING origin, is_proven, 1, bytes";
            let mut statement = connection.prepare_cached(sql)?;
            let row = params![millis(before), EXPIRY_STEP];
            let expired: Vec<Share> = statement.query_map(row, share)?.collect::<Result<_, _>>()?;
            count(connection, "unproven_expired", expired.len())?;
            Ok(expired)
        })
        .await
}

/// Lets parked rows wait anew: this one, or all of them; their rooms.
pub(crate) async fn unpark(
    database: &Database,
    id: Option<i64>,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE backlog SET state = 'waiting', reason = NULL, attempts = 0, due_at = 0, arrived_at = ?2
                       WHERE state = 'parked' AND (?1 IS NULL OR id = ?1) RETURNING room_id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![id, millis(now)], |row| row.get(0))?;
            rows.collect()
        })
        .await
}

/// A parked event: whole.
#[derive(Debug, Clone)]
pub(crate) struct ParkedRow {
    /// Its row.
    pub(crate) id: i64,
    /// Its room and id.
    pub(crate) event: RoomEvent,
    /// Who brought it.
    pub(crate) origin: ServerName,
    /// Why.
    pub(crate) reason: String,
    /// When it arrived.
    pub(crate) arrived_at: Timestamp,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Itself.
    pub(crate) pdu: Bytes,
}

/// Parked events, oldest first: this one, or the first `limit`.
pub(crate) async fn parked(
    database: &Database,
    id: Option<i64>,
    limit: u32,
) -> Result<Vec<ParkedRow>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT id, room_id, event_id, origin, reason, arrived_at, bytes, pdu FROM backlog
                       WHERE state = 'parked' AND (?1 IS NULL OR id = ?1) ORDER BY id LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![id, limit], |row| {
                Ok(ParkedRow {
                    id: row.get(0)?,
                    event: (row.get(1)?, row.get(2)?),
                    origin: server_name(row, 3)?,
                    reason: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                    arrived_at: time(row, 5)?,
                    bytes: unsigned(row, 6)?,
                    pdu: row.get::<_, Vec<u8>>(7)?.into(),
                })
            })?;
            rows.collect()
        })
        .await
}

/// Removes a parked row; the room that it took.
pub(crate) async fn drop_parked(database: &Database, id: i64) -> Result<Option<Share>, StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM backlog WHERE id = ?1 AND state = 'parked'
                       RETURNING origin, is_proven, 1, bytes";
            connection.prepare_cached(sql)?.query_row([id], share).optional()
        })
        .await
}
