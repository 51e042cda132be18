//! Mail that nobody has proven: what waits for a believed key, and what became too old.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Row, params};

use super::{EXPIRY_STEP, Stored, count, drop_oldest_forged, proof, server_name, store, unsigned};
use crate::inbox::mail::{Mail, Standing};
use crate::store::seen::{TransactionKey, millis};

/// An envelope that waits for a believed key.
#[derive(Debug, Clone)]
pub(crate) struct Unverified {
    /// Its row.
    pub(crate) id: i64,
    /// As it arrived.
    pub(crate) mail: Mail,
}

/// Up to `limit` envelopes of `origin` above the row `after` that wait for a believed key.
pub(crate) async fn unverified(
    database: &Database,
    from: ServerName,
    after: i64,
    limit: u32,
) -> Result<Vec<Unverified>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT id, origin, txn_id, sha256, content, extras, source, uri, authorization, reason, request_id
                       FROM inbox WHERE state = 'unverified' AND origin = ?1 AND id > ?2
                       ORDER BY id LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![from.as_str(), after, limit], unverified_row)?;
            rows.collect()
        })
        .await
}

fn unverified_row(row: &Row<'_>) -> rusqlite::Result<Unverified> {
    let proof = proof(row, 7)?;
    let mail = Mail {
        key: TransactionKey {
            origin: server_name(row, 1)?,
            txn_id: row.get(2)?,
            sha256: row.get(3)?,
        },
        content: row.get::<_, Vec<u8>>(4)?.into(),
        extras: row.get::<_, Vec<u8>>(5)?.into(),
        source: row.get(6)?,
        proof,
        place: None,
        is_entire: false,
        request_id: row.get::<_, Option<String>>(10)?.and_then(|id| id.parse().ok()),
        standing: Standing::Unverified(row.get::<_, Option<String>>(9)?.unwrap_or_default()),
    };
    Ok(Unverified { id: row.get(0)?, mail })
}

/// Puts the judged `mail` in the place of the unverified row `id`; whether it is there for the first time, and `None`
/// if the row was judged meanwhile.
pub(crate) async fn judge(
    database: &Database,
    id: i64,
    mail: Mail,
    now: Timestamp,
) -> Result<Option<Stored>, StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM inbox WHERE id = ?1 AND state = 'unverified'";
            if connection.execute(sql, [id])? == 0 {
                return Ok(None);
            }
            let stored = store(connection, &mail, now)?;
            drop_oldest_forged(connection)?;
            Ok(Some(stored))
        })
        .await
}

/// Removes what is not proven and arrived before `before`, one step of it: what waits for a key, and what was left over
/// of mail without a proof. What each took.
pub(crate) async fn expire_unproven(
    database: &Database,
    before: Timestamp,
) -> Result<Vec<(ServerName, u64)>, StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE arrived_at < ?1 AND
                       (state = 'unverified' OR state = 'parked' AND authorization IS NULL) LIMIT ?2)
                       RETURNING origin, bytes";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![millis(before), EXPIRY_STEP], |row| {
                Ok((server_name(row, 0)?, unsigned(row, 1)?))
            })?;
            let expired: Vec<_> = rows.collect::<Result<_, _>>()?;
            count(connection, "unproven_expired", expired.len())?;
            Ok(expired)
        })
        .await
}
