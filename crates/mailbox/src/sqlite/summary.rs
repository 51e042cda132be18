//! What mailboxes hold, from counters that each change keeps.

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{signed, unsigned};
use crate::{Depth, MailboxSummary};

/// The index gives the oldest; the rest stands in the mailbox's row.
pub(super) const SUMMARIES: &str = "
    SELECT envelopes, bytes,
        (SELECT deposited_at FROM envelopes AS held
         WHERE held.mailbox = mailboxes.mailbox AND held.quarantined = 0
         ORDER BY held.entry LIMIT 1),
        recipient, quarantined, acknowledged_total, expired_total
    FROM mailboxes";

pub(super) fn depth(connection: &Connection, recipient: &ServerName) -> rusqlite::Result<Depth> {
    let depth = connection
        .prepare_cached(&format!("{SUMMARIES} WHERE recipient = ?1"))?
        .query_row([recipient.as_str()], depth_of)
        .optional()?;
    Ok(depth.unwrap_or_default())
}

pub(super) fn list(
    connection: &Connection,
    after: Option<&ServerName>,
    limit: usize,
) -> rusqlite::Result<Vec<MailboxSummary>> {
    let mut statement = connection
        .prepare_cached(&format!("{SUMMARIES} WHERE recipient > ?1 ORDER BY recipient LIMIT ?2"))?;
    let after = after.map_or("", ServerName::as_str);
    statement.query_map(params![after, signed(limit as u64)], summary_of)?.collect()
}

fn summary_of(row: &Row<'_>) -> rusqlite::Result<MailboxSummary> {
    let recipient: String = row.get(3)?;
    Ok(MailboxSummary {
        recipient: recipient.parse().map_err(|error| {
            let kind = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(3, kind, Box::new(error))
        })?,
        depth: depth_of(row)?,
        quarantined: unsigned(row.get(4)?),
        acknowledged_total: unsigned(row.get(5)?),
        expired_total: unsigned(row.get(6)?),
    })
}

fn depth_of(row: &Row<'_>) -> rusqlite::Result<Depth> {
    let oldest_at: Option<i64> = row.get(2)?;
    Ok(Depth {
        count: unsigned(row.get(0)?),
        bytes: unsigned(row.get(1)?),
        oldest_at: oldest_at.map(|millis| Timestamp::from_millis(unsigned(millis))),
    })
}

/// The number of `recipient`'s mailbox.
pub(super) fn mailbox(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT mailbox FROM mailboxes WHERE recipient = ?1")?
        .query_row([recipient.as_str()], |row| row.get(0))
        .optional()
}

/// How many envelopes the mailbox counts.
pub(super) fn count(connection: &Connection, mailbox: i64) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT envelopes FROM mailboxes WHERE mailbox = ?1")?
        .query_row([mailbox], |row| row.get(0).map(unsigned))
}

/// Counts one envelope of `bytes` less. The size of a damaged one may be wrong, so the sum stays
/// above zero, and is right again when the last one leaves.
pub(super) fn leave(connection: &Connection, mailbox: i64, bytes: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE mailboxes SET envelopes = max(0, envelopes - 1),
                 bytes = iif(envelopes <= 1, 0, max(0, bytes - ?2)) WHERE mailbox = ?1",
        )?
        .execute(params![mailbox, signed(bytes)])?;
    Ok(())
}

/// Counts one quarantined envelope less.
pub(super) fn leave_quarantine(connection: &Connection, mailbox: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE mailboxes SET quarantined = max(0, quarantined - 1) WHERE mailbox = ?1",
        )?
        .execute([mailbox])?;
    Ok(())
}

/// The size in column `index`: nothing, if that is damaged, so that what is damaged can still leave.
pub(super) fn size(row: &Row<'_>, index: usize) -> u64 {
    row.get_ref(index).ok().and_then(|size| size.as_i64().ok()).map_or(0, unsigned)
}
