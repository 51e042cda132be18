//! Reading a mailbox in order, and setting aside what is damaged.

use std::sync::Arc;

use restante_federation_proto::ServerName;
use restante_sqlite::Database;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Row, params};

use super::body::Stored;
use super::departures::{Departures, Leaving};
use super::seals::Seals;
use super::{damage, signed, summary, unsigned};
use crate::{Collected, Deposit, EntryId, Hold, Page, StoreError, StoredEnvelope};

/// Damaged envelopes that one read meets before it stops to set them aside.
const DAMAGED_MAX: usize = 256;

/// Who looks into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Its owner, who gets nothing while it is held.
    Owner,
    /// The operator, who gets everything.
    Operator,
}

/// Reads until the page is full or the mailbox ends.
pub(super) async fn collect(
    (database, seals): (&Database, &Arc<Seals>),
    (reader, recipient): (Reader, &ServerName),
    after: Option<EntryId>,
    page: Page,
) -> Result<Collected, StoreError> {
    let mut cursor = after;
    let mut quarantined = Vec::new();
    loop {
        let (whose, seals) = (recipient.clone(), seals.clone());
        let read = move |connection: &Connection| {
            read((connection, &seals), (reader, &whose), cursor, page)
        };
        let stretch = database.read(read).await?;
        cursor = stretch.damaged.last().map(|damaged| damaged.id).or(cursor);
        let stopped_early = stretch.damaged.len() >= DAMAGED_MAX && stretch.envelopes.is_empty();
        quarantined.extend(set_aside(database, recipient, stretch.damaged).await);
        if !stopped_early {
            return Ok(Collected { envelopes: stretch.envelopes, quarantined });
        }
    }
}

#[derive(Default)]
struct Stretch {
    envelopes: Vec<StoredEnvelope>,
    damaged: Vec<Damaged>,
    /// Whether there is nothing behind it.
    is_at_end: bool,
}

/// An envelope to set aside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damaged {
    pub(super) id: EntryId,
    pub(super) row: i64,
}

/// The index alone answers this, so that a damaged row can't stop the walk.
pub(super) const IN_ORDER: &str = "
    SELECT entry, row FROM envelopes
    WHERE mailbox = ?1 AND quarantined = 0 AND entry > ?2 ORDER BY entry";

/// The same without the index, which may be damaged: reads every envelope of every mailbox.
const IN_TABLE: &str = "
    SELECT entry, row FROM envelopes NOT INDEXED
    WHERE mailbox = ?1 AND quarantined = 0 AND entry > ?2 ORDER BY entry";

fn read(
    (connection, seals): (&Connection, &Seals),
    (reader, recipient): (Reader, &ServerName),
    after: Option<EntryId>,
    page: Page,
) -> rusqlite::Result<Stretch> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else {
        return Ok(Stretch::default());
    };
    if reader == Reader::Owner && mailbox.hold == Hold::Held {
        return Ok(Stretch::default());
    }
    let counted = mailbox.envelopes;
    let walk = Walk { connection, seals, recipient, mailbox: mailbox.mailbox, after, page };
    let stretch = walk.along(IN_ORDER)?;
    if after.is_some() || !stretch.is_at_end {
        return Ok(stretch);
    }
    let found = (stretch.envelopes.len() + stretch.damaged.len()) as u64;
    if found >= counted {
        return Ok(stretch);
    }
    tracing::error!(mailbox.recipient = %recipient, counted, found,
        "the database is damaged: an index misses mail; check the disk, stop the relay and run REINDEX with sqlite3");
    walk.along(IN_TABLE)
}

/// A walk through a mailbox.
pub(super) struct Walk<'a> {
    connection: &'a Connection,
    seals: &'a Seals,
    recipient: &'a ServerName,
    mailbox: i64,
    after: Option<EntryId>,
    page: Page,
}

impl<'a> Walk<'a> {
    /// To read single envelopes, wherever they stand.
    pub(super) fn to_one(
        connection: &'a Connection,
        seals: &'a Seals,
        recipient: &'a ServerName,
        mailbox: i64,
    ) -> Self {
        let page = Page { envelopes_max: 1, bytes_max: usize::MAX };
        Self { connection, seals, recipient, mailbox, after: None, page }
    }
}

impl Walk<'_> {
    /// Takes what fits from the rows that `sql` gives.
    fn along(&self, sql: &str) -> rusqlite::Result<Stretch> {
        let mut stretch = Stretch::default();
        let mut statement = self.connection.prepare_cached(sql)?;
        let after = self.after.map_or(0, |id| signed(id.get()));
        let mut entries = statement.query(params![self.mailbox, after])?;
        let mut bytes_taken = 0_u64;
        while stretch.envelopes.len() < self.page.envelopes_max
            && stretch.damaged.len() < DAMAGED_MAX
        {
            let Some(entry) = entries.next()? else {
                stretch.is_at_end = true;
                break;
            };
            let row = entry.get(1)?;
            let Some(id) = EntryId::new(unsigned(entry.get(0)?)) else { continue };
            let Some(room) = room_left(self.page, bytes_taken, &stretch.envelopes) else { break };
            match self.envelope(row, room)? {
                Found::Whole(deposit) => {
                    bytes_taken += deposit.bytes();
                    stretch.envelopes.push(StoredEnvelope { id, deposit });
                }
                Found::TooLarge => break,
                Found::Damaged => stretch.damaged.push(Damaged { id, row }),
                Found::Elsewhere => {}
            }
        }
        Ok(stretch)
    }

    pub(super) fn envelope(&self, row: i64, room: u64) -> rusqlite::Result<Found> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT origin, txn_id, content_hash, deposited_at, content_bytes, members_bytes,
                     coding, body, checksum, expires_at, seal, onward
                 FROM envelopes WHERE row = ?1",
            )?
            .query_row([row], |row| Ok(check(row, self.recipient, self.seals, room)));
        match found {
            Ok(found) => Ok(found),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(Found::Elsewhere),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                Ok(Found::Damaged)
            }
            Err(error) => Err(error),
        }
    }
}

/// Bytes that the next envelope may have: any number for the first, none once the page is full.
fn room_left(page: Page, bytes_taken: u64, taken: &[StoredEnvelope]) -> Option<u64> {
    if taken.is_empty() { Some(u64::MAX) } else { (page.bytes_max as u64).checked_sub(bytes_taken) }
}

pub(super) enum Found {
    Whole(Deposit),
    /// For the room that the page has left.
    TooLarge,
    Damaged,
    /// The index points where no row is.
    Elsewhere,
}

fn check(row: &Row<'_>, recipient: &ServerName, seals: &Seals, room: u64) -> Found {
    let Some((stored, checksum)) = columns(row) else { return Found::Damaged };
    if stored.checksum(recipient)[..] != *checksum {
        return Found::Damaged;
    }
    if unsigned(stored.content_bytes).saturating_add(unsigned(stored.members_bytes)) > room {
        return Found::TooLarge;
    }
    stored.unpack(recipient, seals).map_or(Found::Damaged, Found::Whole)
}

/// The columns of a row from `origin` to `onward`, in the order in which they are selected here. `None` if one has another type than
/// was written.
pub(super) fn columns<'a>(row: &'a Row<'_>) -> Option<(Stored<'a>, &'a [u8])> {
    let bytes = |column: usize| match row.get_ref(column).ok()? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        _ => None,
    };
    let number = |column: usize| row.get_ref(column).ok()?.as_i64().ok();
    let stored = Stored {
        origin: bytes(0)?,
        txn_id: bytes(1)?,
        content_hash: bytes(2)?,
        deposited_at: number(3)?,
        expires_at: number(9).unwrap_or(number(3)?),
        content_bytes: number(4)?,
        members_bytes: number(5)?,
        coding: number(6)?,
        seal: number(10)?,
        body: bytes(7)?,
        onward: number(11).unwrap_or(0),
    };
    Some((stored, bytes(8)?))
}

/// Marks the damaged envelopes, and tells which are marked. If that fails, they are met and
/// reported again at the next collect; the mail around them flows all the same.
pub(super) async fn set_aside(
    database: &Database,
    recipient: &ServerName,
    damaged: Vec<Damaged>,
) -> Vec<EntryId> {
    if damaged.is_empty() {
        return Vec::new();
    }
    let mark = |damaged| database.write(marking(recipient, damaged));
    match damage::all_or_each(recipient, &damaged, mark).await {
        Ok(marked) => {
            let marked = marked.concat();
            report(recipient, &marked);
            marked
        }
        Err(error) => {
            tracing::error!(mailbox.recipient = %recipient, error = &error as &dyn std::error::Error,
                "damaged envelopes could not be set aside");
            Vec::new()
        }
    }
}

/// Says which are set aside.
pub(super) fn report(recipient: &ServerName, marked: &[EntryId]) {
    for id in marked {
        tracing::error!(mailbox.recipient = %recipient, envelope.id = id.get(),
            "an envelope is damaged and set aside; check the disk");
    }
}

/// The write that sets those of the damaged envelopes aside that are still there, and tells which.
pub(super) fn marking(
    recipient: &ServerName,
    damaged: Vec<Damaged>,
) -> impl FnOnce(&Connection) -> rusqlite::Result<Vec<EntryId>> + Send + 'static {
    let recipient = recipient.clone();
    move |connection| mark(connection, &recipient, &damaged)
}

fn mark(
    connection: &Connection,
    recipient: &ServerName,
    damaged: &[Damaged],
) -> rusqlite::Result<Vec<EntryId>> {
    match summary::mailbox(connection, recipient)? {
        Some(mailbox) => mark_in(connection, mailbox.mailbox, damaged),
        None => Ok(Vec::new()),
    }
}

/// The same in the mailbox of that number.
pub(super) fn mark_in(
    connection: &Connection,
    mailbox: i64,
    damaged: &[Damaged],
) -> rusqlite::Result<Vec<EntryId>> {
    let mut marked = Vec::new();
    let mut departures = Departures::default();
    for Damaged { id, row } in damaged {
        // Meanwhile it may have been acknowledged, or set aside by another collect; and the number of the last row is
        // given again to the next envelope.
        let leaving = connection
            .prepare_cached(
                "UPDATE envelopes SET quarantined = 1, duplicate_key = NULL, onward = 0
                 WHERE row = ?1 AND mailbox = ?2 AND entry = ?3 AND quarantined = 0
                 RETURNING row, mailbox, 0, content_bytes + members_bytes, origin, seal",
            )?
            .query_map(params![row, mailbox, signed(id.get())], Leaving::of)?
            .last();
        let Some(leaving) = leaving else { continue };
        departures.set_aside(&leaving?);
        marked.push(*id);
    }
    departures.settle(connection)?;
    Ok(marked)
}
