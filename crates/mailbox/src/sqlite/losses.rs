//! Counting what was lost, and telling it.

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, Row, params};

use super::{signed, summary, unsigned};
use crate::losses::LOSS_ORIGINS_MAX;
use crate::{Loss, LossKind};

/// Stands for the origins beyond [`LOSS_ORIGINS_MAX`], and for those that damage made unreadable.
const OTHERS: &str = "";

/// 2^53 ms, the year 287,396.
const TIME_MAX: i64 = 1 << 53;

/// Envelopes of one origin.
pub(super) struct Lost<'a> {
    pub(super) kind: LossKind,
    pub(super) origin: Option<&'a str>,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// Counts envelopes as lost, and their mailbox's totals with them.
pub(super) fn count(
    connection: &Connection,
    mailbox: i64,
    lost: &Lost<'_>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let (expired, dropped) = match lost.kind {
        LossKind::Expired => (lost.count, 0),
        LossKind::Dropped => (0, lost.count),
        LossKind::MailboxFull | LossKind::ShareFull | LossKind::RelayFull => (0, 0),
    };
    // A clock at the end of time leaves room for what is lost after it.
    let now = signed(now.as_millis()).min(TIME_MAX);
    let until = connection
        .prepare_cached(
            "UPDATE mailboxes SET last_loss = max(?2, coalesce(last_loss + 1, ?2)),
                 expired_total = expired_total + ?3, dropped_total = dropped_total + ?4
             WHERE mailbox = ?1 RETURNING last_loss",
        )?
        .query_map(params![mailbox, now, signed(expired), signed(dropped)], |row| row.get(0))?
        .last();
    // A damaged number of a mailbox: nobody would ever ask for these losses.
    let Some(until) = until.transpose()? else { return Ok(()) };
    let until: i64 = until;
    let named = lost.origin.filter(|origin| origin.parse::<ServerName>().is_ok());
    let origin = named.unwrap_or(OTHERS);
    if add(connection, mailbox, lost, origin, until)? {
        return Ok(());
    }
    let has_room = origin != OTHERS
        && named_origins(connection, mailbox, lost.kind)? < LOSS_ORIGINS_MAX as u64;
    if !has_room && add(connection, mailbox, lost, OTHERS, until)? {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO losses (mailbox, kind, origin, count, bytes, since, until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            mailbox,
            lost.kind as i64,
            if has_room { origin } else { OTHERS },
            signed(lost.count),
            signed(lost.bytes),
            now,
            until
        ])?;
    Ok(())
}

/// Adds to what is counted for `origin`; whether anything is.
fn add(
    connection: &Connection,
    mailbox: i64,
    lost: &Lost<'_>,
    origin: &str,
    until: i64,
) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE losses SET count = count + ?4, bytes = min(bytes + ?5, 1 << 62), until = ?6
             WHERE mailbox = ?1 AND kind = ?2 AND origin = ?3",
        )?
        .execute(params![
            mailbox,
            lost.kind as i64,
            origin,
            signed(lost.count),
            signed(lost.bytes).min(1 << 61),
            until
        ])?;
    Ok(changed > 0)
}

pub(super) const NAMED: &str =
    "SELECT count(*) FROM losses WHERE mailbox = ?1 AND kind = ?2 AND origin > ''";

fn named_origins(connection: &Connection, mailbox: i64, kind: LossKind) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(NAMED)?
        .query_row(params![mailbox, kind as i64], |row| row.get(0).map(unsigned))
}

pub(super) const OF_MAILBOX: &str = "
    SELECT kind, origin, count, bytes, since, until FROM losses
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1) ORDER BY kind, origin";

pub(super) fn losses(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Vec<Loss>> {
    let mut statement = connection.prepare_cached(OF_MAILBOX)?;
    let losses = statement.query_map([recipient.as_str()], loss_of)?;
    // A kind that is none was damaged.
    losses.filter_map(Result::transpose).collect()
}

fn loss_of(row: &Row<'_>) -> rusqlite::Result<Option<Loss>> {
    let Some(kind) = LossKind::of(row.get(0)?) else { return Ok(None) };
    let origin: String = row.get(1)?;
    Ok(Some(Loss {
        kind,
        origin: origin.parse().ok(),
        count: unsigned(row.get(2)?),
        bytes: unsigned(row.get(3)?),
        since: summary::time(row, 4)?,
        until: summary::time(row, 5)?,
    }))
}

pub(super) const FORGET: &str = "
    DELETE FROM losses
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1) AND until <= ?2";

pub(super) fn forget(
    connection: &Connection,
    recipient: &ServerName,
    until: Timestamp,
) -> rusqlite::Result<()> {
    let until = signed(until.as_millis());
    connection.prepare_cached(FORGET)?.execute(params![recipient.as_str(), until]).map(drop)
}
