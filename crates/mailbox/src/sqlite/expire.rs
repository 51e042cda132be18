//! Removing what is past its time, oldest first, in steps of the caller's size.

use restante_federation_proto::Timestamp;
use rusqlite::{Connection, params};

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
    let remembered = connection.prepare_cached(FORGET)?.execute(params![before, batch_max])?;
    let envelopes = due(connection, before, batch_max)?;
    for envelope in &envelopes {
        envelope.remove(connection)?;
    }
    Ok(Expired { envelopes: envelopes.len() as u64, remembered: remembered as u64 })
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
