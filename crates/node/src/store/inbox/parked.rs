//! What the operator sees and changes of mail that is not delivered: parked, or found forged.

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{server_name, time, unsigned};

/// One envelope that is not delivered, or one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parked {
    /// Its row.
    pub(crate) id: i64,
    /// Its origin.
    pub(crate) origin: ServerName,
    /// The room of a single event.
    pub(crate) room_id: Option<String>,
    /// Its transaction id, or its event id.
    pub(crate) txn_id: String,
    /// Its number.
    pub(crate) seq: Option<u64>,
    /// `parked` or `forged`.
    pub(crate) state: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// The relay that gave it, or `direct`; for an event, its room.
    pub(crate) source: String,
    /// When it arrived.
    pub(crate) arrived_at: Timestamp,
    /// What it takes of the inbox.
    pub(crate) bytes: u64,
    /// Whether it has a proof.
    pub(crate) has_proof: bool,
}

/// The envelope with what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParkedMail {
    /// Without the content.
    pub(crate) listed: Parked,
    /// The transaction.
    pub(crate) content: Bytes,
    /// The proof: target and authorization.
    pub(crate) proof: Option<(String, String)>,
}

const COLUMNS: &str =
    "id, origin, txn_id, seq, state, reason, source, arrived_at, bytes, uri, authorization";

/// The oldest `limit` envelopes above the row `after`.
pub(crate) async fn parked(
    database: &Database,
    after: i64,
    limit: u32,
) -> Result<Vec<Parked>, StoreError> {
    database
        .read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM inbox WHERE state IN ('parked', 'forged') AND id > ?1
                 ORDER BY id LIMIT ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, limit], parked_row)?;
            rows.collect()
        })
        .await
}

/// The number of the newest of them; 0 without any.
pub(crate) async fn last_parked(database: &Database) -> Result<i64, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT ifnull(max(id), 0) FROM inbox WHERE state IN ('parked', 'forged')";
            connection.query_row(sql, [], |row| row.get(0))
        })
        .await
}

/// One envelope with its content; `None` if it is not among them.
pub(crate) async fn parked_one(
    database: &Database,
    id: i64,
) -> Result<Option<ParkedMail>, StoreError> {
    database
        .read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS}, content FROM inbox WHERE id = ?1 AND state IN ('parked', 'forged')"
            );
            let mail = |row: &Row<'_>| {
                let proof = (row.get::<_, Option<_>>(9)?).zip(row.get(10)?);
                let content = row.get::<_, Vec<u8>>(11)?.into();
                Ok(ParkedMail { listed: parked_row(row)?, content, proof })
            };
            connection.prepare_cached(&sql)?.query_row([id], mail).optional()
        })
        .await
}

/// Puts an envelope from one state into another; whether it was in the first.
pub(crate) async fn revive(
    database: &Database,
    id: i64,
    (from, to): (&'static str, &'static str),
) -> Result<bool, StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE inbox SET state = ?3, reason = NULL WHERE id = ?1 AND state = ?2";
            Ok(connection.execute(sql, params![id, from, to])? > 0)
        })
        .await
}

/// Drops an envelope by the operator's word; what it was, if it was there.
pub(crate) async fn drop_parked(
    database: &Database,
    id: i64,
) -> Result<Option<Parked>, StoreError> {
    database.write(move |connection| drop_one(connection, id)).await
}

fn drop_one(connection: &Connection, id: i64) -> rusqlite::Result<Option<Parked>> {
    let sql = format!(
        "DELETE FROM inbox WHERE id = ?1 AND state IN ('parked', 'forged') RETURNING {COLUMNS}"
    );
    let dropped = connection.query_row(&sql, [id], parked_row).optional()?;
    if dropped.is_some() {
        let sql = "INSERT INTO inbox_totals (name, value) VALUES ('dropped', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1";
        connection.execute(sql, [])?;
    }
    Ok(dropped)
}

fn parked_row(row: &Row<'_>) -> rusqlite::Result<Parked> {
    Ok(Parked {
        id: row.get(0)?,
        room_id: None,
        origin: server_name(row, 1)?,
        txn_id: row.get(2)?,
        seq: row.get::<_, Option<i64>>(3)?.and_then(|seq| u64::try_from(seq).ok()),
        state: row.get(4)?,
        reason: row.get(5)?,
        source: row.get(6)?,
        arrived_at: time(row, 7)?,
        bytes: unsigned(row, 8)?,
        has_proof: row.get::<_, Option<String>>(10)?.is_some(),
    })
}
