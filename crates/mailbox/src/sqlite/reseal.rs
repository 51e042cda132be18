//! Sealing envelopes anew, a few at a time, after the operator changed keys.
//!
//! What lies on damaged pages stops nothing: its neighbours are found by an index, and each is written alone.

use restante_federation_proto::ServerName;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::collect::{Damaged, columns, mark_in};
use super::seals::{self, Seals};
use super::{signed, unsigned};
use crate::{EntryId, Resealed};

/// Bytes of bodies that one step holds in memory; one larger body passes alone.
const STEP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one step found, and where the next goes on.
#[derive(Debug, Default, Clone)]
pub(super) struct Found {
    pub(super) looked_at: u64,
    pub(super) last_row: i64,
    pub(super) changes: Vec<Change>,
}

/// What is to be written for one envelope.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Seal(Body),
    SetAside(Place),
}

/// A body sealed anew.
#[derive(Debug, Clone)]
pub(super) struct Body {
    place: Place,
    old_seal: i64,
    old_checksum: Vec<u8>,
    seal: i64,
    checksum: [u8; 32],
    bytes: Vec<u8>,
}

/// Where an envelope is: in which row, and in which mailbox under which id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    row: i64,
    mailbox: i64,
    entry: i64,
}

/// One row of a walk.
struct Next {
    place: Place,
    quarantined: i64,
    /// Unknown where the row itself can't be read.
    seal: Option<i64>,
}

pub(super) const NEXT: &str = "
    SELECT row, mailbox, entry, quarantined, seal FROM envelopes
    WHERE row > ?1 ORDER BY row LIMIT ?2";

/// The same from an index alone, which knows the rows of damaged pages, too; reads the whole index.
const NEXT_BY_INDEX: &str = "
    SELECT row, mailbox, entry, quarantined, NULL
    FROM envelopes INDEXED BY envelopes_in_order
    WHERE row > ?1 ORDER BY row LIMIT ?2";

/// Looks at the envelopes behind `after`, and seals in memory what needs it.
pub(super) fn find(
    connection: &Connection,
    seals: &Seals,
    after: i64,
    batch_max: usize,
) -> rusqlite::Result<Found> {
    let next = match walk(connection, NEXT, after, batch_max) {
        Err(error) if is_corrupt(&error) => walk(connection, NEXT_BY_INDEX, after, batch_max)?,
        next => next?,
    };
    let mut found = Found { last_row: after, ..Found::default() };
    let mut bytes = 0;
    for Next { place, quarantined, seal } in next {
        if seal != Some(seals.current()) && quarantined == 0 {
            let change = change(connection, seals, place)?;
            if let Some(Change::Seal(body)) = &change {
                bytes += body.bytes.len();
            }
            found.changes.extend(change);
        }
        found.looked_at += 1;
        found.last_row = place.row;
        if bytes > STEP_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}

fn walk(
    connection: &Connection,
    sql: &str,
    after: i64,
    batch_max: usize,
) -> rusqlite::Result<Vec<Next>> {
    let next = |row: &Row<'_>| {
        let place = Place { row: row.get(0)?, mailbox: row.get(1)?, entry: row.get(2)? };
        Ok(Next { place, quarantined: row.get(3)?, seal: row.get(4).ok() })
    };
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![after, signed(batch_max as u64)], next)?.collect()
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
}

pub(super) const WHOLE: &str = "
    SELECT origin, txn_id, content_hash, deposited_at, content_bytes, members_bytes, coding, body,
        checksum, expires_at, seal,
        (SELECT recipient FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox)
    FROM envelopes WHERE row = ?1";

/// What becomes of one envelope; nothing if it is gone, or is sealed as it should be.
fn change(
    connection: &Connection,
    seals: &Seals,
    place: Place,
) -> rusqlite::Result<Option<Change>> {
    let whole = connection
        .prepare_cached(WHOLE)?
        .query_row([place.row], |columns| {
            let is_current = columns.get::<_, i64>(10).ok() == Some(seals.current());
            Ok((!is_current).then(|| reseal(columns, seals, place)))
        })
        .optional();
    match whole {
        Err(error) if is_corrupt(&error) => Ok(Some(Change::SetAside(place))),
        whole => {
            let sealed = whole?.flatten();
            Ok(sealed.map(|sealed| sealed.map_or(Change::SetAside(place), Change::Seal)))
        }
    }
}

/// `None` if it is damaged.
fn reseal(row: &Row<'_>, seals: &Seals, place: Place) -> Option<Body> {
    let recipient: ServerName = row.get::<_, String>(11).ok()?.parse().ok()?;
    let (stored, checksum) = columns(row)?;
    if stored.checksum(&recipient)[..] != *checksum {
        return None;
    }
    let about = stored.about(&recipient);
    let plain = seals.open(stored.seal, stored.body, &about)?;
    let (seal, bytes) =
        seals.seal(&plain, &about).unwrap_or_else(|| (seals::PLAIN, plain.into_owned()));
    let (old_seal, old_checksum) = (stored.seal, checksum.to_vec());
    let checksum = super::body::Stored { body: &bytes, ..stored }.checksum(&recipient);
    Some(Body { place, old_seal, old_checksum, seal, checksum, bytes })
}

/// Writes what was sealed anew, unless it left meanwhile, and sets aside what was damaged.
pub(super) fn put(connection: &Connection, found: &Found) -> rusqlite::Result<Resealed> {
    let mut resealed = Resealed { looked_at: found.looked_at, ..Resealed::default() };
    for change in &found.changes {
        match change {
            Change::Seal(body) => resealed.resealed += u64::from(put_one(connection, body)?),
            Change::SetAside(place) => {
                resealed.quarantined += u64::from(set_aside(connection, *place)?);
            }
        }
    }
    Ok(resealed)
}

/// The same, each envelope in a commit of its own: what lies on damaged pages can't be written, and takes all else of its
/// commit with it. A whole one beside such a page, which has to grow into it, stays as it is and is handed out as before.
pub(super) async fn put_one_by_one(
    database: &Database,
    found: Found,
) -> Result<Resealed, StoreError> {
    let mut resealed = Resealed { looked_at: found.looked_at, ..Resealed::default() };
    for change in found.changes {
        let place = change.place();
        let one = Found { changes: vec![change], ..Found::default() };
        match database.write(move |connection| put(connection, &one)).await {
            Ok(one) => {
                resealed.resealed += one.resealed;
                resealed.quarantined += one.quarantined;
            }
            Err(error) if error.is_damage() => {
                let (row, error) = (place.row, &error as &dyn std::error::Error);
                tracing::error!(
                    row,
                    error,
                    "an envelope on or beside a damaged page can't be written, and stays as it is; check the disk"
                );
                resealed.left += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(resealed)
}

impl Change {
    fn place(&self) -> Place {
        match self {
            Self::Seal(body) => body.place,
            Self::SetAside(place) => *place,
        }
    }
}

fn put_one(connection: &Connection, body: &Body) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE envelopes SET body = ?2, checksum = ?3, seal = ?4
             WHERE row = ?1 AND seal = ?5 AND checksum = ?6 AND quarantined = 0",
        )?
        .execute(params![
            body.place.row,
            body.bytes,
            body.checksum,
            body.seal,
            body.old_seal,
            body.old_checksum
        ])?;
    if changed > 0 {
        seals::count(connection, body.old_seal, -1)?;
        seals::count(connection, body.seal, 1)?;
    }
    Ok(changed > 0)
}

fn set_aside(connection: &Connection, place: Place) -> rusqlite::Result<bool> {
    let Place { row, mailbox, entry } = place;
    let Some(id) = EntryId::new(unsigned(entry)) else { return Ok(false) };
    let marked = mark_in(connection, mailbox, &[Damaged { id, row }])?;
    for id in &marked {
        tracing::error!(
            mailbox.number = mailbox,
            envelope.id = id.get(),
            "an envelope is damaged and set aside; check the disk"
        );
    }
    Ok(!marked.is_empty())
}
