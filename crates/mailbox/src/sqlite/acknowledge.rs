//! Removing what its owner has.

use restante_federation_proto::ServerName;
use rusqlite::{Connection, OptionalExtension, params};

use super::{signed, summary};
use crate::{Acknowledged, Acknowledgement};

/// Removes the named envelopes of this one mailbox, and remembers their duplicate keys.
pub(super) fn acknowledge(
    connection: &Connection,
    recipient: &ServerName,
    acknowledgements: &[Acknowledgement],
) -> rusqlite::Result<Acknowledged> {
    let mut acknowledged = Acknowledged::default();
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(acknowledged) };
    for acknowledgement in acknowledgements {
        let Some(held) = find(connection, mailbox, *acknowledgement)? else { continue };
        remember(connection, &held)?;
        connection.prepare_cached("DELETE FROM envelopes WHERE row = ?1")?.execute([held.row])?;
        held.count_out(connection, mailbox)?;
        acknowledged.removed += 1;
    }
    connection
        .prepare_cached(
            "UPDATE mailboxes SET acknowledged_total = acknowledged_total + ?2 WHERE mailbox = ?1",
        )?
        .execute(params![mailbox, signed(acknowledged.removed)])?;
    Ok(acknowledged)
}

struct Held {
    row: i64,
    quarantined: bool,
    duplicate_key: Option<Vec<u8>>,
    deposited_at: i64,
    bytes: u64,
}

pub(super) const FIND: &str = "
    SELECT row, quarantined, duplicate_key, deposited_at, content_bytes + members_bytes
    FROM envelopes
    WHERE mailbox = ?1 AND quarantined IN (0, 1) AND entry = ?2
        AND (?3 IS NULL OR content_hash = ?3)";

fn find(
    connection: &Connection,
    mailbox: i64,
    acknowledgement: Acknowledgement,
) -> rusqlite::Result<Option<Held>> {
    connection
        .prepare_cached(FIND)?
        .query_row(
            params![
                mailbox,
                signed(acknowledgement.id.get()),
                acknowledgement.content_hash.map(|hash| hash.0)
            ],
            |row| {
                Ok(Held {
                    row: row.get(0)?,
                    quarantined: row.get(1)?,
                    duplicate_key: row.get(2)?,
                    deposited_at: row.get(3)?,
                    bytes: summary::size(row, 4),
                })
            },
        )
        .optional()
}

/// A quarantined envelope has no key to remember: whether it was that mail is not known.
fn remember(connection: &Connection, held: &Held) -> rusqlite::Result<()> {
    let Some(key) = &held.duplicate_key else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO acknowledged (duplicate_key, deposited_at) VALUES (?1, ?2)",
        )?
        .execute(params![key, held.deposited_at])?;
    Ok(())
}

impl Held {
    fn count_out(&self, connection: &Connection, mailbox: i64) -> rusqlite::Result<()> {
        if self.quarantined {
            summary::leave_quarantine(connection, mailbox)
        } else {
            summary::leave(connection, mailbox, self.bytes)
        }
    }
}
