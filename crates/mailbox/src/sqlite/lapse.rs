//! Ends registrations whose servers are silent, and removes mailboxes that nobody needs.

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{signed, summary};
use crate::{Lapse, Lapsed};

pub(super) const NOTE_CALL: &str = "
    UPDATE registrations SET called_at = max(called_at, ?2)
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1)";

pub(super) fn note_call(
    connection: &Connection,
    recipient: &ServerName,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let now = signed(now.as_millis());
    connection.prepare_cached(NOTE_CALL)?.execute(params![recipient.as_str(), now]).map(drop)
}

/// Mailboxes that were looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// Those where there may be something to end; the write looks again.
    pub(super) candidates: Vec<ServerName>,
    /// The last one; `None` after the last of all.
    pub(super) last: Option<ServerName>,
}

pub(super) const PAGE: &str = "
    SELECT recipient,
        CASE WHEN registrations.mailbox IS NULL
            THEN envelopes = 0 AND quarantined = 0 AND held = 0 AND used_at < ?4
                AND coalesce(last_loss, -1) < ?4
            ELSE by_operator = 0 AND called_at < ?3 END
    FROM mailboxes LEFT JOIN registrations ON registrations.mailbox = mailboxes.mailbox
    WHERE recipient > ?1 ORDER BY recipient LIMIT ?2";

/// Looks without the writer: in most steps there is nothing to end.
pub(super) fn find(
    connection: &Connection,
    lapse: &Lapse,
    after: Option<&ServerName>,
    batch_max: usize,
) -> rusqlite::Result<Page> {
    let mut page = Page::default();
    let mut statement = connection.prepare_cached(PAGE)?;
    let mut rows = statement.query(params![
        after.map_or("", ServerName::as_str),
        signed(batch_max as u64),
        signed(lapse.called_before.as_millis()),
        signed(lapse.unused_before.as_millis())
    ])?;
    while let Some(row) = rows.next()? {
        // A name that is none was damaged; nobody calls for that mailbox, and what it holds stays.
        let Ok(recipient) = summary::server_name(row, 0) else { continue };
        if row.get(1)? && !lapse.spares(&recipient) {
            page.candidates.push(recipient.clone());
        }
        page.last = Some(recipient);
    }
    Ok(page)
}

/// Ends what is still to be ended.
pub(super) fn end(connection: &Connection, lapse: &Lapse, page: Page) -> rusqlite::Result<Lapsed> {
    let mut lapsed = Lapsed { last: page.last, ..Lapsed::default() };
    for recipient in page.candidates {
        if end_registration(connection, &recipient, lapse.called_before)? {
            lapsed.registrations.push(recipient.clone());
        }
        if !begin_to_count(connection, &recipient, lapse.now)?
            && remove(connection, &recipient, lapse.unused_before)?
        {
            lapsed.mailboxes.push(recipient);
        }
    }
    Ok(lapsed)
}

pub(super) const END_REGISTRATION: &str = "
    DELETE FROM registrations
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1)
        AND by_operator = 0 AND called_at < ?2";

fn end_registration(
    connection: &Connection,
    recipient: &ServerName,
    called_before: Timestamp,
) -> rusqlite::Result<bool> {
    let called_before = signed(called_before.as_millis());
    let ended = connection
        .prepare_cached(END_REGISTRATION)?
        .execute(params![recipient.as_str(), called_before])?;
    connection
        .prepare_cached("UPDATE totals SET registrations = max(0, registrations - ?1)")?
        .execute([signed(ended as u64)])?;
    Ok(ended > 0)
}

pub(super) const BEGIN_TO_COUNT: &str =
    "UPDATE mailboxes SET used_at = ?2 WHERE recipient = ?1 AND used_at = 0";

/// When a mailbox of an earlier schema was used is not known; it counts from here on.
fn begin_to_count(
    connection: &Connection,
    recipient: &ServerName,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let now = signed(now.as_millis());
    let begun =
        connection.prepare_cached(BEGIN_TO_COUNT)?.execute(params![recipient.as_str(), now])?;
    Ok(begun > 0)
}

pub(super) const GIVE_UP: &str = "
    UPDATE mailboxes SET used_at = 1, last_loss = NULL
    WHERE recipient = ?1 AND envelopes = 0 AND quarantined = 0";

/// The owner has left and wants nothing of it: an empty mailbox may go with the next look.
pub(super) fn give_up(connection: &Connection, recipient: &ServerName) -> rusqlite::Result<()> {
    connection.prepare_cached(GIVE_UP)?.execute([recipient.as_str()]).map(drop)
}

/// The counters may be damaged, so that mail itself is looked for as well.
pub(super) const REMOVE: &str = "
    DELETE FROM mailboxes
    WHERE recipient = ?1 AND envelopes = 0 AND quarantined = 0 AND held = 0
        AND used_at < ?2 AND coalesce(last_loss, -1) < ?2
        AND NOT EXISTS (
            SELECT 1 FROM registrations WHERE registrations.mailbox = mailboxes.mailbox)
        AND NOT EXISTS (
            SELECT 1 FROM envelopes AS held
            WHERE held.mailbox = mailboxes.mailbox AND held.quarantined IN (0, 1))
    RETURNING mailbox";

fn remove(
    connection: &Connection,
    recipient: &ServerName,
    unused_before: Timestamp,
) -> rusqlite::Result<bool> {
    let number = |row: &Row<'_>| row.get(0);
    let unused_before = signed(unused_before.as_millis());
    let removed: Option<i64> = connection
        .prepare_cached(REMOVE)?
        .query_row(params![recipient.as_str(), unused_before], number)
        .optional()?;
    let Some(mailbox) = removed else { return Ok(false) };
    forget(connection, mailbox)?;
    Ok(true)
}

/// A mailbox was removed: its number may be given to another, which must find nothing under it.
pub(super) fn forget(connection: &Connection, mailbox: i64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM losses WHERE mailbox = ?1",
        "DELETE FROM shares WHERE mailbox = ?1",
        "DELETE FROM onward_destinations WHERE mailbox = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([mailbox])?;
    }
    let count = "UPDATE totals SET mailboxes = max(0, mailboxes - 1)";
    connection.prepare_cached(count)?.execute([]).map(drop)
}
