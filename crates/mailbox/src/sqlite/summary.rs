//! What mailboxes hold, from counters that each change keeps.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::is_damaged;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{signed, unsigned};
use crate::{Depth, Hold, MailboxSummary, Registered};

/// The oldest is [`OLDEST`]; the rest stands in the mailbox's row.
pub(super) const SUMMARIES: &str = "
    SELECT envelopes, bytes, mailbox, recipient, quarantined, acknowledged_total, expired_total, dropped_total, held,
        EXISTS (SELECT 1 FROM registrations WHERE registrations.mailbox = mailboxes.mailbox),
        delivered_total, passed_on_total, withdrawn_total
    FROM mailboxes";

/// Apart from [`SUMMARIES`], since an envelope's page may be lost.
pub(super) const OLDEST: &str = "
    SELECT deposited_at FROM envelopes WHERE mailbox = ?1 AND quarantined = 0
    ORDER BY entry LIMIT 1";

pub(super) fn depth(connection: &Connection, recipient: &ServerName) -> rusqlite::Result<Depth> {
    let depth = connection
        .prepare_cached(&format!("{SUMMARIES} WHERE recipient = ?1"))?
        .query_row([recipient.as_str()], |row| depth_of(connection, row))
        .optional()?;
    Ok(depth.unwrap_or_default())
}

pub(super) fn summary(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Option<MailboxSummary>> {
    connection
        .prepare_cached(&format!("{SUMMARIES} WHERE recipient = ?1"))?
        .query_row([recipient.as_str()], |row| summary_of(connection, row))
        .optional()
}

pub(super) fn list(
    connection: &Connection,
    after: Option<&ServerName>,
    limit: usize,
) -> rusqlite::Result<Vec<MailboxSummary>> {
    let mut statement = connection
        .prepare_cached(&format!("{SUMMARIES} WHERE recipient > ?1 ORDER BY recipient LIMIT ?2"))?;
    let after = after.map_or("", ServerName::as_str);
    let page = params![after, signed(limit as u64)];
    statement.query_map(page, |row| summary_of(connection, row))?.collect()
}

fn summary_of(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<MailboxSummary> {
    Ok(MailboxSummary {
        recipient: server_name(row, 3)?,
        depth: depth_of(connection, row)?,
        quarantined: unsigned(row.get(4)?),
        acknowledged_total: unsigned(row.get(5)?),
        delivered_total: unsigned(row.get(10)?),
        passed_on_total: unsigned(row.get(11)?),
        withdrawn_total: unsigned(row.get(12)?),
        expired_total: unsigned(row.get(6)?),
        dropped_total: unsigned(row.get(7)?),
        hold: hold_of(row.get(8)?),
        registered: if row.get(9)? { Registered::Yes } else { Registered::No },
    })
}

/// The server name in column `index`.
pub(super) fn server_name(row: &Row<'_>, index: usize) -> rusqlite::Result<ServerName> {
    let name: String = row.get(index)?;
    name.parse().map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
    })
}

/// The time in column `index`.
pub(super) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millis(unsigned(row.get(index)?)))
}

fn depth_of(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Depth> {
    Ok(Depth {
        count: unsigned(row.get(0)?),
        bytes: unsigned(row.get(1)?),
        oldest_at: oldest_at(connection, row.get(2)?)?,
    })
}

/// Of a damaged one it is not known.
fn oldest_at(connection: &Connection, mailbox: i64) -> rusqlite::Result<Option<Timestamp>> {
    let oldest =
        connection.prepare_cached(OLDEST)?.query_row([mailbox], |row| time(row, 0)).optional();
    match oldest {
        Err(error) if is_damaged(&error) => Ok(None),
        oldest => oldest,
    }
}

fn hold_of(held: i64) -> Hold {
    if held == 0 { Hold::Released } else { Hold::Held }
}

/// A mailbox's row, as far as those need it who walk through the mailbox.
pub(super) struct Mailbox {
    pub(super) mailbox: i64,
    pub(super) last_entry: i64,
    /// How many envelopes it counts.
    pub(super) envelopes: u64,
    pub(super) quarantined: u64,
    pub(super) hold: Hold,
}

/// The mailbox of `recipient`.
pub(super) fn mailbox(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Option<Mailbox>> {
    let sql = "SELECT mailbox, last_entry, envelopes, quarantined, held
               FROM mailboxes WHERE recipient = ?1";
    let mailbox = |row: &Row<'_>| {
        Ok(Mailbox {
            mailbox: row.get(0)?,
            last_entry: row.get(1)?,
            envelopes: unsigned(row.get(2)?),
            quarantined: unsigned(row.get(3)?),
            hold: hold_of(row.get(4)?),
        })
    };
    connection.prepare_cached(sql)?.query_row([recipient.as_str()], mailbox).optional()
}
