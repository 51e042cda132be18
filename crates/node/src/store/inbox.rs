//! The inbox's rows: mail from its arrival until it is confirmed, parked or found forged.

mod copies;
mod overview;
pub(crate) mod parked;
mod settled;
mod twins;
mod unproven;

use std::collections::BTreeSet;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{Content, RequestId};
use restante_sqlite::{Database, StoreError};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::seen::{self, millis};
use super::{number, outbox, receipts_due};
use crate::inbox::mail::{Mail, Standing, StreamPlace};
use crate::inbox::order::{Head, Place};

pub(crate) use overview::{list, newest_arrival, shares};
pub(crate) use settled::{Settled, Settling, settle};
pub(crate) use twins::{Twins, twins};
pub(crate) use unproven::{Unverified, expire_unproven, judge, unverified};

/// Streams of one origin that are looked at for what comes next; an origin has one, and another after a
/// reinstallation.
const STREAMS_MAX: u32 = 16;

/// Forged envelopes that are kept to be looked at. They are no mail, so the oldest make room.
const FORGED_MAX: i64 = 200;

/// Rows that one step of removing what is too old takes, so that other writes need not wait long.
pub(crate) const EXPIRY_STEP: u32 = 500;

/// An envelope on its way to the homeserver.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// Its row.
    pub(crate) id: i64,
    /// Its transaction id.
    pub(crate) txn_id: String,
    /// The transaction.
    pub(crate) content: Bytes,
    /// The proof; `None` for mail without one.
    pub(crate) proof: Option<(String, String)>,
    /// The capsule that came along; empty for none.
    pub(crate) capsule: Bytes,
    /// When it arrived.
    pub(crate) arrived_at: Timestamp,
    /// The place.
    pub(crate) place: Option<StreamPlace>,
    /// Why it waits.
    pub(crate) reason: Option<String>,
    /// The id by which its sender's logs name it.
    pub(crate) request_id: Option<String>,
    /// Whether the transaction is as it arrived; if not, the disk altered it.
    pub(crate) is_whole: bool,
}

/// What became of mail that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is there for the first time.
    New,
    /// It was there before.
    Known {
        /// Bytes that this copy added to what is there.
        added: u64,
    },
}

/// Stores a batch in one commit; says for each what became of it.
pub(crate) async fn arrive(
    database: &Database,
    mails: Vec<Mail>,
    now: Timestamp,
) -> Result<Vec<Stored>, StoreError> {
    database
        .write(move |connection| {
            let stored = mails.iter().map(|mail| store(connection, mail, now)).collect();
            let forged = mails.iter().any(|mail| matches!(mail.standing, Standing::Forged(_)));
            if forged {
                drop_oldest_forged(connection)?;
            }
            stored
        })
        .await
}

fn store(connection: &Connection, mail: &Mail, now: Timestamp) -> rusqlite::Result<Stored> {
    if let Standing::Receipts(receipts) = &mail.standing {
        let is_first = seen::remember(connection, &mail.key, now)?;
        if !is_first {
            return Ok(Stored::Known { added: 0 });
        }
        outbox::confirm(connection, &mail.key.origin, receipts, now)?;
        return Ok(Stored::New);
    }
    let is_first = if mail.is_proven() {
        seen::remember(connection, &mail.key, now)?
            || mail.is_relayed() && seen::take_copy(connection, &mail.key)?
    } else {
        !seen::contains(connection, &mail.key)? && !is_held(connection, mail)?
    };
    if is_first {
        insert(connection, mail, now)?;
        return Ok(Stored::New);
    }
    if mail.is_proven() && mail.place.is_some() {
        copies::add_place(connection, mail)?;
        receipts_due::came_again(connection, (&mail.key, &mail.source), now)?;
    }
    let added = if mail.is_proven() { copies::add_capsule(connection, mail)? } else { 0 };
    Ok(Stored::Known { added })
}

/// Unproven mail does not count as seen, or an altered proof would keep the good one out, and what one relay stripped of its capsule
/// the whole copy of another. Of what is forged one copy is enough, and one of what a relay gives again and again: what goes along is
/// long to read.
fn is_held(connection: &Connection, mail: &Mail) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM inbox WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3 AND authorization IS ?4
               AND (?5 OR source = ?6 OR extras = ?7)";
    let authorization = mail.proof.as_ref().map(|(_, authorization)| authorization);
    let key = &mail.key;
    connection.prepare_cached(sql)?.exists(params![
        key.origin.as_str(),
        key.txn_id,
        key.sha256,
        authorization,
        matches!(mail.standing, Standing::Forged(_)),
        mail.source,
        mail.extras.as_ref()
    ])
}

fn insert(connection: &Connection, mail: &Mail, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO inbox (origin, txn_id, sha256, state, reason, uri, authorization, content, extras,
               stream, seq, deposited_at, source, arrived_at, bytes, request_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    let (state, reason) = mail.state();
    connection.prepare_cached(sql)?.execute(params![
        mail.key.origin.as_str(),
        mail.key.txn_id,
        mail.key.sha256,
        state,
        reason,
        mail.proof.as_ref().map(|(uri, _)| uri),
        mail.proof.as_ref().map(|(_, authorization)| authorization),
        mail.content.as_ref(),
        mail.extras.as_ref(),
        mail.place.as_ref().map(|place| &place.stream),
        mail.place.as_ref().map(|place| number(place.seq)),
        mail.place.as_ref().map(|place| millis(place.deposited_at)),
        mail.source,
        millis(now),
        number(mail.bytes()),
        mail.request_id.as_ref().map(RequestId::as_str),
    ])?;
    if matches!(mail.standing, Standing::Parked(_)) {
        count(connection, "parked", 1)?;
        advance_past(connection, &mail.key.origin, mail.place.as_ref(), now)?;
        if mail.place.is_some() {
            let from = (&mail.key, mail.source.as_str());
            receipts_due::ended(connection, from, receipts_due::Ended::Parked, &[], now)?;
        }
    }
    Ok(())
}

/// Waiting envelopes that are looked through for a room: those that came first, which are delivered first.
const LOOKED_THROUGH_MAX: u32 = 200;

/// Bytes of an envelope that is looked through.
const LOOKED_THROUGH_BYTES_MAX: u32 = 128 * 1024;

/// Others than `origin` whose waiting mail may be for one of `rooms`: it names it.
pub(crate) async fn origins_in_rooms(
    database: &Database,
    origin: ServerName,
    rooms: BTreeSet<String>,
) -> Result<BTreeSet<ServerName>, StoreError> {
    database
        .read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT origin FROM (SELECT origin, content FROM inbox
                     WHERE state = 'waiting' AND origin <> ?1 AND bytes <= ?2 ORDER BY id LIMIT ?3)
                 WHERE instr(content, ?4) > 0",
            )?;
            let mut origins = BTreeSet::new();
            for room in rooms {
                let bounds = (LOOKED_THROUGH_BYTES_MAX, LOOKED_THROUGH_MAX);
                let of_room = params![origin.as_str(), bounds.0, bounds.1, room.as_bytes()];
                for name in statement.query_map(of_room, |row| row.get::<_, String>(0))? {
                    origins.extend(name?.parse::<ServerName>());
                }
            }
            Ok(origins)
        })
        .await
}

fn drop_oldest_forged(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE state = 'forged'
               ORDER BY id DESC LIMIT -1 OFFSET ?1)";
    let dropped = connection.prepare_cached(sql)?.execute([FORGED_MAX])?;
    count(connection, "forged_dropped", dropped)
}

pub(in crate::store) fn count(
    connection: &Connection,
    name: &str,
    more: usize,
) -> rusqlite::Result<()> {
    let sql = "UPDATE inbox_totals SET value = value + ?2 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute(params![name, number(more as u64)]).map(drop)
}

fn advance_past(
    connection: &Connection,
    origin: &ServerName,
    place: Option<&StreamPlace>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    match place {
        Some(place) => seen::advance(connection, origin, &place.stream, place.seq, now),
        None => Ok(()),
    }
}

/// The first waiting envelope of each stream of `origin`, and the first without a place.
pub(crate) async fn heads(
    database: &Database,
    origin: ServerName,
) -> Result<Vec<Head>, StoreError> {
    database
        .read(move |connection| {
            // With one min(), the bare columns are those of its row.
            let placed = "SELECT first.id, first.arrived_at, first.stream, first.seq, first.deposited_at,
                          streams.done_through
                          FROM (SELECT id, arrived_at, stream, min(seq) AS seq, deposited_at FROM inbox
                                WHERE origin = ?1 AND state = 'waiting' AND stream IS NOT NULL
                                GROUP BY stream LIMIT ?2) AS first
                          LEFT JOIN streams ON streams.origin = ?1 AND streams.stream = first.stream";
            let bare = "SELECT min(id), arrived_at FROM inbox
                        WHERE origin = ?1 AND state = 'waiting' AND stream IS NULL HAVING min(id) IS NOT NULL";
            let mut statement = connection.prepare_cached(placed)?;
            let mut heads: Vec<Head> = statement
                .query_map(params![origin.as_str(), STREAMS_MAX], placed_head)?
                .collect::<Result<_, _>>()?;
            let mut statement = connection.prepare_cached(bare)?;
            let bare = statement.query_row([origin.as_str()], |row| {
                Ok(Head { id: row.get(0)?, place: None, arrived_at: time(row, 1)? })
            });
            heads.extend(bare.optional()?);
            Ok(heads)
        })
        .await
}

fn placed_head(row: &Row<'_>) -> rusqlite::Result<Head> {
    let place = Place {
        stream: row.get(2)?,
        seq: unsigned(row, 3)?,
        deposited_at: time(row, 4)?,
        done_through: row.get::<_, Option<i64>>(5)?.map(|done| u64::try_from(done).unwrap_or(0)),
    };
    Ok(Head { id: row.get(0)?, place: Some(place), arrived_at: time(row, 1)? })
}

/// The whole envelope; `None` if it does not wait.
pub(crate) async fn load(database: &Database, id: i64) -> Result<Option<Envelope>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT id, txn_id, content, uri, authorization, stream, seq, deposited_at, reason, extras, arrived_at,
                       sha256, request_id FROM inbox WHERE id = ?1 AND state = 'waiting'";
            let row = |row: &Row<'_>| {
                let content: Bytes = row.get::<_, Vec<u8>>(2)?.into();
                Ok(Envelope {
                    id: row.get(0)?,
                    txn_id: row.get(1)?,
                    is_whole: is_whole(&content, &row.get::<_, Vec<u8>>(11)?),
                    content,
                    proof: proof(row, 3)?,
                    place: place(row, 5)?,
                    reason: row.get(8)?,
                    capsule: row.get::<_, Vec<u8>>(9)?.into(),
                    arrived_at: time(row, 10)?,
                    request_id: row.get(12)?,
                })
            };
            connection.prepare_cached(sql)?.query_row([id], row).optional()
        })
        .await
}

fn is_whole(content: &Bytes, sha256: &[u8]) -> bool {
    Content::parse(content.clone()).is_ok_and(|content| content.sha256() == sha256)
}

/// Notes why an envelope waits.
pub(crate) async fn wait(database: &Database, id: i64, reason: String) -> Result<(), StoreError> {
    let sql = "UPDATE inbox SET reason = ?2 WHERE id = ?1 AND state = 'waiting'";
    database.write(move |connection| connection.execute(sql, params![id, reason]).map(drop)).await
}

/// What was delivered and not confirmed, in the order of delivery: rows and origins. Their contents together may be
/// larger than the memory.
pub(crate) async fn delivered(database: &Database) -> Result<Vec<(i64, ServerName)>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT id, origin FROM inbox WHERE state = 'delivered'
                       ORDER BY origin, stream, seq, id";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, server_name(row, 1)?)))?;
            rows.collect()
        })
        .await
}

/// The transaction of a row that was delivered.
pub(crate) async fn content(database: &Database, id: i64) -> Result<Option<Bytes>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT content FROM inbox WHERE id = ?1";
            let content = |row: &Row<'_>| row.get::<_, Vec<u8>>(0).map(Bytes::from);
            connection.prepare_cached(sql)?.query_row([id], content).optional()
        })
        .await
}

/// An envelope's transaction and capsule; the capsule is empty for none.
pub(crate) async fn contents(
    database: &Database,
    id: i64,
) -> Result<Option<(Bytes, Bytes)>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT content, extras FROM inbox WHERE id = ?1";
            let bytes = |row: &Row<'_>, index| row.get::<_, Vec<u8>>(index).map(Bytes::from);
            let contents = |row: &Row<'_>| Ok((bytes(row, 0)?, bytes(row, 1)?));
            connection.prepare_cached(sql)?.query_row([id], contents).optional()
        })
        .await
}

fn proof(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<(String, String)>> {
    let (uri, authorization): (Option<_>, Option<_>) = (row.get(first)?, row.get(first + 1)?);
    Ok(uri.zip(authorization))
}

fn place(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<StreamPlace>> {
    let Some(stream) = row.get(first)? else { return Ok(None) };
    let (seq, deposited_at) = (unsigned(row, first + 1)?, time(row, first + 2)?);
    Ok(Some(StreamPlace { stream, seq, deposited_at }))
}

pub(in crate::store) fn server_name(row: &Row<'_>, index: usize) -> rusqlite::Result<ServerName> {
    row.get::<_, String>(index)?.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
    })
}

pub(in crate::store) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    unsigned(row, index).map(Timestamp::from_millis)
}

pub(in crate::store) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(|value| u64::try_from(value).unwrap_or(0))
}
