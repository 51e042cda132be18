//! Copies of what was left with relays, until it is known to have arrived.

pub(crate) mod audit;
mod confirmed;
pub(crate) mod overview;
pub(crate) mod withdrawn;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::DeliveryReceipt;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::inbox::{server_name, time, unsigned};
use super::ledger::Transaction;
use super::seen::millis;
use super::{number, timestamp};
use crate::delivery::ledger::Place;
use crate::outbox::KeptCopy;
use crate::outbox::rule::{NotSent, send_after};

pub(crate) use confirmed::ErrorSummary;
pub(in crate::store) use confirmed::confirm;

/// Copies that one step of removing what is too old, or too much, takes, so that other writes need not wait long.
const STEP: u32 = 200;

/// A copy that is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// It.
    pub(crate) copy: KeptCopy,
    /// Bytes of all copies; beyond them those of the destination with most of them go, the oldest first.
    pub(crate) bytes_max: u64,
    /// What the relay's word is worth that took it.
    pub(crate) word: Word,
}

/// What a relay's word is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Who took it has it.
    Counts,
    /// It may be lost: a copy is kept so that the relay can be asked, and what was wanted is wanted.
    DoesNotCount,
}

/// What waits for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The destination.
    pub(crate) destination: ServerName,
    /// When the oldest was left of those that may be sent now.
    pub(crate) oldest_at: Option<Timestamp>,
    /// Of how many of these no relay is known to hold them, or their recipient says that they never came.
    pub(crate) wanted: u64,
    /// How many of that kind may be left with relays now.
    pub(crate) to_leave: u64,
    /// When more may be sent or left.
    pub(crate) next_at: Option<Timestamp>,
}

/// A copy with its place.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    /// What identifies it.
    pub(crate) transaction: Transaction,
    /// Its place in the stream.
    pub(crate) place: Place,
    /// It.
    pub(crate) copy: KeptCopy,
}

/// Why a copy was sent in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vain {
    /// It did not work.
    Failed,
    /// The destination refused it with these words.
    Refused(String),
    /// Its content is what the destination refused, with these words.
    Unfit(String),
}

/// Whether copies are within their bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// They are.
    Left,
    /// Some must go.
    None,
}

/// Keeps the copy of what a relay took just now, unless it has arrived or is kept already; whether others have to make room.
pub(super) fn keep(
    connection: &Connection,
    (destination, seq): (&ServerName, u64),
    Kept { copy, bytes_max, word }: &Kept,
    now: Timestamp,
) -> rusqlite::Result<Room> {
    let sql = "INSERT OR IGNORE INTO kept_copies (destination, seq, target, authorization, content, sha256, kept_at,
               capsule)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE
               EXISTS (SELECT 1 FROM ledger WHERE destination = ?1 AND seq = ?2
                       AND delivered_at IS NULL AND confirmed_at IS NULL)";
    let KeptCopy { target, authorization, compressed, capsule, sha256 } = copy;
    let (name, seq) = (destination.as_str(), number(seq));
    let row = params![name, seq, target, authorization, compressed, sha256, millis(now), capsule];
    connection.prepare_cached(sql)?.execute(row)?;
    if *word == Word::Counts {
        let found = "UPDATE kept_copies SET wanted_at = NULL WHERE destination = ?1 AND seq = ?2";
        connection.prepare_cached(found)?.execute(params![name, seq])?;
    }
    Ok(if total(connection, "copy_bytes")? > *bytes_max { Room::None } else { Room::Left })
}

/// Lets go of copies beyond `bytes_max`, of the destination with most bytes the oldest first, up to `step`; how many.
fn evict(connection: &Connection, bytes_max: u64, step: u32) -> rusqlite::Result<usize> {
    let mut evicted = 0;
    for _ in 0..step {
        if total(connection, "copy_bytes")? <= bytes_max {
            break;
        }
        let sql = "DELETE FROM kept_copies WHERE id = (SELECT id FROM kept_copies WHERE destination =
                   (SELECT destination FROM copy_shares ORDER BY bytes DESC LIMIT 1) ORDER BY kept_at, id LIMIT 1)";
        if connection.prepare_cached(sql)?.execute([])? == 0 {
            break;
        }
        evicted += 1;
    }
    count(connection, "copies_dropped", evicted)?;
    Ok(evicted)
}

/// The destination itself took it: the copy, if there is one, goes.
pub(super) fn arrived_directly(
    connection: &Connection,
    destination: &ServerName,
    seq: u64,
) -> rusqlite::Result<()> {
    if drop_copy(connection, destination, number(seq))? {
        count(connection, "sent_directly", 1)?;
    }
    Ok(())
}

fn drop_copy(
    connection: &Connection,
    destination: &ServerName,
    seq: i64,
) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM kept_copies WHERE destination = ?1 AND seq = ?2";
    Ok(connection.prepare_cached(sql)?.execute(params![destination.as_str(), seq])? > 0)
}

pub(super) fn count(connection: &Connection, name: &str, more: usize) -> rusqlite::Result<()> {
    if more == 0 {
        // Else each look at what is too old would be a write that has to reach the disk.
        return Ok(());
    }
    let sql = "UPDATE outbox_totals SET value = value + ?2 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute(params![name, number(more as u64)]).map(drop)
}

fn total(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT value FROM outbox_totals WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name], |row| unsigned(row, 0))
}

/// What waits at `now`, by destination.
pub(crate) async fn waiting(
    database: &Database,
    now: Timestamp,
) -> Result<Vec<Waiting>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT destination, min(iif(ifnull(send_after, 0) <= ?1, kept_at, NULL)),
                       count(iif(ifnull(send_after, 0) <= ?1, wanted_at, NULL)),
                       count(iif(ifnull(leave_after, 0) <= ?1, wanted_at, NULL)),
                       min(iif(send_after > ?1, send_after, NULL)),
                       min(iif(leave_after > ?1 AND wanted_at IS NOT NULL, leave_after, NULL))
                       FROM kept_copies GROUP BY destination";
            let waiting = |row: &Row<'_>| {
                let next = [maybe_time(row, 4)?, maybe_time(row, 5)?];
                Ok(Waiting {
                    destination: server_name(row, 0)?,
                    oldest_at: maybe_time(row, 1)?,
                    wanted: unsigned(row, 2)?,
                    to_leave: unsigned(row, 3)?,
                    next_at: next.into_iter().flatten().min(),
                })
            };
            connection.prepare_cached(sql)?.query_map([millis(now)], waiting)?.collect()
        })
        .await
}

fn maybe_time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(timestamp))
}

/// The numbers of the first `limit` copies for `destination` that may be sent at `now`, and are wanted or were left at
/// `left_by` or before.
pub(crate) async fn due(
    database: &Database,
    destination: ServerName,
    (left_by, now): (Option<Timestamp>, Timestamp),
    limit: u32,
) -> Result<Vec<u64>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT seq FROM kept_copies WHERE destination = ?1 AND ifnull(send_after, 0) <= ?4
                       AND (wanted_at IS NOT NULL OR kept_at <= ?2) ORDER BY seq LIMIT ?3";
            let left_by = left_by.map_or(-1, millis);
            let row = params![destination.as_str(), left_by, limit, millis(now)];
            connection.prepare_cached(sql)?.query_map(row, |row| unsigned(row, 0))?.collect()
        })
        .await
}

/// The numbers of the first `limit` copies for `destination` that are wanted and may be left with relays at `now`.
pub(crate) async fn to_leave(
    database: &Database,
    destination: ServerName,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<u64>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT seq FROM kept_copies WHERE destination = ?1 AND wanted_at IS NOT NULL
                       AND ifnull(leave_after, 0) <= ?2 ORDER BY seq LIMIT ?3";
            let row = params![destination.as_str(), millis(now), limit];
            connection.prepare_cached(sql)?.query_map(row, |row| unsigned(row, 0))?.collect()
        })
        .await
}

/// A copy with its place; `None` if it is gone.
pub(crate) async fn load(
    database: &Database,
    destination: ServerName,
    seq: u64,
) -> Result<Option<Left>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT txn_id, content_sha256, first_at, target, authorization, content, sha256, capsule
                       FROM kept_copies JOIN ledger USING (destination, seq)
                       WHERE destination = ?1 AND seq = ?2";
            let left = |row: &Row<'_>| {
                Ok(Left {
                    transaction: Transaction {
                        destination: destination.clone(),
                        txn_id: row.get(0)?,
                        content_sha256: row.get(1)?,
                    },
                    place: Place { seq, first_at: time(row, 2)? },
                    copy: KeptCopy {
                        target: row.get(3)?,
                        authorization: row.get(4)?,
                        compressed: row.get(5)?,
                        sha256: row.get(6)?,
                        capsule: row.get(7)?,
                    },
                })
            };
            let row = params![destination.as_str(), number(seq)];
            connection.prepare_cached(sql)?.query_row(row, left).optional()
        })
        .await
}

/// A copy was sent in vain; when it is sent again follows from how often that was, and others go first until then.
pub(crate) async fn sent_in_vain(
    database: &Database,
    (destination, seq): (ServerName, u64),
    vain: Vain,
    (now, random): (Timestamp, f64),
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql =
                "UPDATE kept_copies SET failures = failures + 1, refused = coalesce(?3, refused)
                       WHERE destination = ?1 AND seq = ?2 RETURNING failures";
            let (why, said) = match &vain {
                Vain::Failed => (NotSent::Failed, None),
                Vain::Refused(said) => (NotSent::Refused, Some(said)),
                Vain::Unfit(said) => (NotSent::Unfit, Some(said)),
            };
            let (name, seq) = (destination.as_str(), number(seq));
            let failures = connection
                .prepare_cached(sql)?
                .query_row(params![name, seq, said], |row| row.get::<_, u32>(0))
                .optional()?;
            let Some(failures) = failures else { return Ok(()) };
            let after = send_after(why, failures, now, random).map(millis);
            let sql = "UPDATE kept_copies SET send_after = ?3 WHERE destination = ?1 AND seq = ?2";
            connection.prepare_cached(sql)?.execute(params![name, seq, after]).map(drop)
        })
        .await
}

/// A copy can't be read any longer: it is kept for its operator to see, and neither sent nor left before `until`.
pub(crate) async fn damaged(
    database: &Database,
    destination: ServerName,
    seq: u64,
    until: Timestamp,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql =
                "UPDATE kept_copies SET refused = 'the copy was altered on this node''s disk',
                       send_after = ?3, leave_after = ?3 WHERE destination = ?1 AND seq = ?2";
            let row = params![destination.as_str(), number(seq), millis(until)];
            connection.prepare_cached(sql)?.execute(row).map(drop)
        })
        .await
}

/// A copy is not left with relays again before `until`; `more` counts as left again.
pub(crate) async fn leaves_again(
    database: &Database,
    (destination, seq): (ServerName, u64),
    until: Timestamp,
    more: usize,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE kept_copies SET leave_after = ?3 WHERE destination = ?1 AND seq = ?2";
            let row = params![destination.as_str(), number(seq), millis(until)];
            connection.prepare_cached(sql)?.execute(row)?;
            count(connection, "left_again", more)
        })
        .await
}

/// Lets go of copies beyond `bytes_max`, one step of it; how many.
pub(crate) async fn make_room(database: &Database, bytes_max: u64) -> Result<usize, StoreError> {
    let bytes = database.read(|connection| total(connection, "copy_bytes")).await?;
    if bytes <= bytes_max {
        return Ok(0);
    }
    database.write(move |connection| evict(connection, bytes_max, STEP)).await
}

/// Lets go of copies that were left before `before`, one step of it; how many.
pub(crate) async fn expire(database: &Database, before: Timestamp) -> Result<usize, StoreError> {
    database
        .write(move |connection| {
            // Copies take ids in the order of time, so that the oldest are found without a look at the others.
            let sql = "DELETE FROM kept_copies WHERE kept_at < ?1 AND id IN
                       (SELECT id FROM kept_copies ORDER BY id LIMIT ?2)";
            let row = params![millis(before), STEP];
            let expired = connection.prepare_cached(sql)?.execute(row)?;
            count(connection, "copies_expired", expired)?;
            Ok(expired)
        })
        .await
}

/// Enters what `from` said of mail that was for it; durable on return.
pub(crate) async fn told(
    database: &Database,
    from: ServerName,
    receipts: Vec<DeliveryReceipt>,
    now: Timestamp,
) -> Result<(), StoreError> {
    database.write(move |connection| confirm(connection, &from, &receipts, now)).await
}
