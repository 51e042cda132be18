//! Mailboxes that are there for nothing but mail to be delivered onward: an empty one makes room for another.

use rusqlite::{Connection, OptionalExtension, Row};

use super::lapse;

/// The one that was used longest ago. Counters may be damaged, so that mail itself is looked for as well.
pub(super) const FIRST: &str = "
    SELECT mailbox FROM mailboxes
    WHERE for_onward = 1 AND envelopes = 0 AND quarantined = 0 AND held = 0 AND used_at >= 0
        AND NOT EXISTS (
            SELECT 1 FROM registrations WHERE registrations.mailbox = mailboxes.mailbox)
        AND NOT EXISTS (
            SELECT 1 FROM envelopes AS held
            WHERE held.mailbox = mailboxes.mailbox AND held.quarantined IN (0, 1))
    ORDER BY used_at, recipient LIMIT 1";

/// Whether there is an empty one.
pub(super) fn is_any(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(first(connection)?.is_some())
}

/// Removes the empty one that was used longest ago.
pub(super) fn give_up(connection: &Connection) -> rusqlite::Result<()> {
    let Some(mailbox) = first(connection)? else { return Ok(()) };
    connection.prepare_cached("DELETE FROM mailboxes WHERE mailbox = ?1")?.execute([mailbox])?;
    lapse::forget(connection, mailbox)
}

fn first(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let number = |row: &Row<'_>| row.get(0);
    connection.prepare_cached(FIRST)?.query_row([], number).optional()
}

pub(super) const KEEP: &str =
    "UPDATE mailboxes SET for_onward = 0 WHERE mailbox = ?1 AND for_onward <> 0";

/// From here on it is there for more than that.
pub(super) fn keep(connection: &Connection, mailbox: i64) -> rusqlite::Result<()> {
    connection.prepare_cached(KEEP)?.execute([mailbox]).map(drop)
}
