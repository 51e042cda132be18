//! Removing what is past its time, oldest first, in steps of the caller's size.

use restante_federation_proto::Timestamp;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, ErrorCode, params};

use super::{signed, summary};
use crate::Expired;

pub(super) const FORGET: &str = "
    DELETE FROM acknowledged WHERE duplicate_key IN (
        SELECT duplicate_key FROM acknowledged WHERE deposited_at < ?1
        ORDER BY deposited_at LIMIT ?2)";

pub(super) const DUE: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes FROM envelopes
    WHERE deposited_at < ?1 ORDER BY deposited_at, row LIMIT ?2";

/// One step. The key of an expired envelope goes with it.
pub(super) fn expire(
    connection: &Connection,
    deposited_before: Timestamp,
    batch_max: usize,
) -> rusqlite::Result<Expired> {
    let before = signed(deposited_before.as_millis());
    let batch_max = signed(batch_max as u64);
    let remembered = forget(connection, before, batch_max)?;
    let envelopes = due(connection, before, batch_max)?;
    for envelope in &envelopes {
        envelope.remove(connection)?;
    }
    Ok(Expired { envelopes: envelopes.len() as u64, remembered })
}

fn forget(connection: &Connection, before: i64, batch_max: i64) -> rusqlite::Result<u64> {
    let forgotten = connection.prepare_cached(FORGET)?.execute(params![before, batch_max])?;
    Ok(forgotten as u64)
}

/// The same, each envelope in a commit of its own: what lies on damaged pages can't even be removed, and takes all else
/// of its commit with it. It stays, and the rest goes.
pub(super) async fn expire_one_by_one(
    database: &Database,
    deposited_before: Timestamp,
    batch_max: usize,
) -> Result<Expired, StoreError> {
    let (before, batch_max) = (signed(deposited_before.as_millis()), signed(batch_max as u64));
    let envelopes = database.read(move |connection| due(connection, before, batch_max)).await?;
    let mut expired = Expired::default();
    for envelope in envelopes {
        let row = envelope.row;
        match database.write(move |connection| envelope.remove(connection)).await {
            Ok(()) => expired.envelopes += 1,
            Err(error) if is_damage(&error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    row,
                    error,
                    "a damaged envelope past its time can't be removed; check the disk"
                );
            }
            Err(error) => return Err(error),
        }
    }
    let forgotten = database.write(move |connection| forget(connection, before, batch_max));
    expired.remembered = forgotten.await?;
    Ok(expired)
}

/// Whether pages contradict each other.
pub(super) fn is_damage(error: &StoreError) -> bool {
    let StoreError::Sqlite(source) = error else { return false };
    source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

struct Due {
    row: i64,
    mailbox: i64,
    quarantined: bool,
    bytes: u64,
}

fn due(connection: &Connection, before: i64, batch_max: i64) -> rusqlite::Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(DUE)?;
    let rows = statement.query_map(params![before, batch_max], |row| {
        Ok(Due {
            row: row.get(0)?,
            mailbox: row.get(1)?,
            quarantined: row.get(2)?,
            bytes: summary::size(row, 3),
        })
    })?;
    rows.collect()
}

impl Due {
    fn remove(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.prepare_cached("DELETE FROM envelopes WHERE row = ?1")?.execute([self.row])?;
        if self.quarantined {
            summary::leave_quarantine(connection, self.mailbox)?;
        } else {
            summary::leave(connection, self.mailbox, self.bytes)?;
        }
        connection
            .prepare_cached(
                "UPDATE mailboxes SET expired_total = expired_total + 1 WHERE mailbox = ?1",
            )?
            .execute([self.mailbox])?;
        Ok(())
    }
}
