//! Sealing envelopes anew, a few at a time, after the operator changed keys.

use restante_federation_proto::ServerName;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::collect::{Damaged, columns, mark};
use super::seals::{self, Seals};
use super::signed;
use crate::{EntryId, Resealed};

/// Bytes of bodies that one step holds in memory; one larger body passes alone.
const STEP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What one step found, and where the next goes on.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) looked_at: u64,
    pub(super) last_row: i64,
    pub(super) bodies: Vec<Body>,
    pub(super) damaged: Vec<(ServerName, Damaged)>,
}

/// A body sealed anew.
#[derive(Debug)]
pub(super) struct Body {
    row: i64,
    old_seal: i64,
    old_checksum: Vec<u8>,
    seal: i64,
    checksum: [u8; 32],
    bytes: Vec<u8>,
}

pub(super) const NEXT: &str =
    "SELECT row, seal, quarantined FROM envelopes WHERE row > ?1 ORDER BY row LIMIT ?2";

/// Looks at the envelopes behind `after`, and seals in memory what needs it.
pub(super) fn find(
    connection: &Connection,
    seals: &Seals,
    after: i64,
    batch_max: usize,
) -> rusqlite::Result<Found> {
    let mut found = Found { last_row: after, ..Found::default() };
    let mut bytes = 0;
    let mut statement = connection.prepare_cached(NEXT)?;
    let mut rows = statement.query(params![after, signed(batch_max as u64)])?;
    while let Some(next) = rows.next()? {
        let row: i64 = next.get(0)?;
        let (seal, quarantined): (i64, i64) = (next.get(1)?, next.get(2)?);
        if seal != seals.current() && quarantined == 0 {
            match seal_anew(connection, seals, row)? {
                Outcome::Sealed(body) => {
                    bytes += body.bytes.len();
                    found.bodies.push(body);
                }
                Outcome::Damaged(whose, damaged) => found.damaged.push((whose, damaged)),
                Outcome::Gone => {}
            }
        }
        found.looked_at += 1;
        found.last_row = row;
        if bytes > STEP_BYTES_MAX {
            break;
        }
    }
    Ok(found)
}

enum Outcome {
    Sealed(Body),
    Damaged(ServerName, Damaged),
    /// It or its mailbox can't be read; whoever collects meets it, too.
    Gone,
}

pub(super) const WHOLE: &str = "
    SELECT origin, txn_id, content_hash, deposited_at, content_bytes, members_bytes, coding, body,
        checksum, expires_at, seal, entry,
        (SELECT recipient FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox)
    FROM envelopes WHERE row = ?1";

fn seal_anew(connection: &Connection, seals: &Seals, row: i64) -> rusqlite::Result<Outcome> {
    let whole = connection
        .prepare_cached(WHOLE)?
        .query_row([row], |columns| Ok(reseal(columns, seals, row)))
        .optional();
    match whole {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            Ok(Outcome::Gone)
        }
        whole => Ok(whole?.flatten().unwrap_or(Outcome::Gone)),
    }
}

fn reseal(row: &Row<'_>, seals: &Seals, number: i64) -> Option<Outcome> {
    let recipient: ServerName = row.get::<_, String>(12).ok()?.parse().ok()?;
    let id = EntryId::new(u64::try_from(row.get::<_, i64>(11).ok()?).ok()?)?;
    let sealed = columns(row).and_then(|(stored, checksum)| {
        if stored.checksum(&recipient)[..] != *checksum {
            return None;
        }
        let about = stored.about(&recipient);
        let plain = seals.open(stored.seal, stored.body, &about)?;
        let (seal, bytes) =
            seals.seal(&plain, &about).unwrap_or_else(|| (seals::PLAIN, plain.into_owned()));
        let (old_seal, old_checksum) = (stored.seal, checksum.to_vec());
        let checksum = super::body::Stored { body: &bytes, ..stored }.checksum(&recipient);
        Some(Body { row: number, old_seal, old_checksum, seal, checksum, bytes })
    });
    let damaged = || Outcome::Damaged(recipient, Damaged { id, row: number });
    Some(sealed.map_or_else(damaged, Outcome::Sealed))
}

/// Writes what was sealed anew, unless it left meanwhile, and sets aside what was damaged.
pub(super) fn put(connection: &Connection, found: &Found) -> rusqlite::Result<Resealed> {
    let mut resealed = Resealed { looked_at: found.looked_at, resealed: 0 };
    for body in &found.bodies {
        let changed = connection
            .prepare_cached(
                "UPDATE envelopes SET body = ?2, checksum = ?3, seal = ?4
                 WHERE row = ?1 AND seal = ?5 AND checksum = ?6 AND quarantined = 0",
            )?
            .execute(params![
                body.row,
                body.bytes,
                body.checksum,
                body.seal,
                body.old_seal,
                body.old_checksum
            ])?;
        if changed > 0 {
            seals::count(connection, body.old_seal, -1)?;
            seals::count(connection, body.seal, 1)?;
            resealed.resealed += 1;
        }
    }
    for (recipient, damaged) in &found.damaged {
        mark(connection, recipient, &[*damaged])?;
    }
    Ok(resealed)
}
