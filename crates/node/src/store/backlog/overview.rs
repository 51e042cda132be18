//! What the backlog holds, in sums.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::Row;

use crate::store::inbox::{server_name, time, unsigned};

/// A share of the inbox that events of the backlog take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// Who brought them.
    pub(crate) origin: ServerName,
    /// Whether that is proven.
    pub(crate) is_proven: bool,
    /// Events.
    pub(crate) count: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

pub(super) fn share(row: &Row<'_>) -> rusqlite::Result<Share> {
    Ok(Share {
        origin: server_name(row, 0)?,
        is_proven: row.get(1)?,
        count: unsigned(row, 2)?,
        bytes: unsigned(row, 3)?,
    })
}

/// What the backlog holds, by origin.
pub(crate) async fn shares(database: &Database) -> Result<Vec<Share>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT origin, is_proven, count(*), sum(bytes) FROM backlog GROUP BY 1, 2";
            connection.prepare(sql)?.query_map([], share)?.collect()
        })
        .await
}

/// What waits in one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomShare {
    /// The room.
    pub(crate) room_id: String,
    /// Events that wait.
    pub(crate) waiting: u64,
    /// Events that the homeserver took and that are not confirmed.
    pub(crate) sent: u64,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// The rooms in which events wait or are not confirmed, by age, at most `limit`.
pub(crate) async fn rooms(database: &Database, limit: u32) -> Result<Vec<RoomShare>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT room_id, sum(state = 'waiting'), sum(state = 'sent'), min(arrived_at) FROM backlog
                       WHERE state IN ('waiting', 'sent') GROUP BY room_id ORDER BY 4 LIMIT ?1";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([limit], |row| {
                Ok(RoomShare {
                    room_id: row.get(0)?,
                    waiting: unsigned(row, 1)?,
                    sent: unsigned(row, 2)?,
                    since: time(row, 3)?,
                })
            })?;
            rows.collect()
        })
        .await
}

/// How many events are parked.
pub(crate) async fn parked_count(database: &Database) -> Result<u64, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT count(*) FROM backlog WHERE state = 'parked'";
            connection.query_row(sql, [], |row| unsigned(row, 0))
        })
        .await
}
