//! What the inbox holds, in sums and by row.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};

use super::{server_name, time, unsigned};
use crate::store::timestamp;

/// A share of the inbox: an origin's rows of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// The origin.
    pub(crate) origin: ServerName,
    /// The state, as in the schema.
    pub(crate) state: String,
    /// Whether the origin is proven.
    pub(crate) is_proven: bool,
    /// Rows.
    pub(crate) count: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// What the inbox holds.
pub(crate) async fn shares(database: &Database) -> Result<Vec<Share>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT origin, state, authorization IS NOT NULL AND state <> 'unverified', count(*), sum(bytes)
                       FROM inbox GROUP BY 1, 2, 3";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Share {
                    origin: server_name(row, 0)?,
                    state: row.get(1)?,
                    is_proven: row.get(2)?,
                    count: unsigned(row, 3)?,
                    bytes: unsigned(row, 4)?,
                })
            })?;
            rows.collect()
        })
        .await
}

/// When mail came last, as far as that is known.
pub(crate) async fn newest_arrival(database: &Database) -> Result<Option<Timestamp>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT max(coalesce((SELECT max(seen_at) FROM seen), -1),
                           coalesce((SELECT arrived_at FROM inbox ORDER BY id DESC LIMIT 1), -1))";
            let newest: i64 = connection.query_row(sql, [], |row| row.get(0))?;
            Ok((newest >= 0).then(|| timestamp(newest)))
        })
        .await
}

/// One row for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its row.
    pub(crate) id: i64,
    /// Its origin.
    pub(crate) origin: ServerName,
    /// Its transaction id.
    pub(crate) txn_id: String,
    /// Its number.
    pub(crate) seq: Option<u64>,
    /// The state, as in the schema.
    pub(crate) state: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// When it arrived.
    pub(crate) arrived_at: Timestamp,
}

/// The oldest `limit` rows, and the counters by name.
pub(crate) async fn list(
    database: &Database,
    limit: u32,
) -> Result<(Vec<Listed>, Vec<(String, u64)>), StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT id, origin, txn_id, seq, state, reason, arrived_at FROM inbox ORDER BY id LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([limit], |row| {
                Ok(Listed {
                    id: row.get(0)?,
                    origin: server_name(row, 1)?,
                    txn_id: row.get(2)?,
                    seq: row.get::<_, Option<i64>>(3)?.and_then(|seq| u64::try_from(seq).ok()),
                    state: row.get(4)?,
                    reason: row.get(5)?,
                    arrived_at: time(row, 6)?,
                })
            })?;
            let rows = rows.collect::<Result<_, _>>()?;
            let mut statement = connection.prepare_cached("SELECT name, value FROM inbox_totals")?;
            let totals = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
            Ok((rows, totals.collect::<Result<_, _>>()?))
        })
        .await
}
