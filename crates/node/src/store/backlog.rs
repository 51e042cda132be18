//! The room backlog's rows: events from the time they are set aside until they are confirmed or parked.

mod overview;
pub(crate) mod parked;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::checksum::{DAMAGED, checksum, whole};
use super::inbox::{server_name, time};
use super::later_receipts;
use super::number;
use super::seen::millis;
use crate::inbox::backlog::{EVENTS_PER_TURN, Held};
use crate::inbox::readiness::RoomEvent;
use crate::inbox::transaction::Pdu;

pub(crate) use overview::{Share, parked_count, rooms, shares};

/// An event as it is set aside.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    /// The event, with its id.
    pub(crate) pdu: Pdu,
    /// Who brought it.
    pub(crate) origin: ServerName,
    /// Whether that is proven.
    pub(crate) is_proven: bool,
    /// What becomes of it.
    pub(crate) fate: Fate,
}

/// What becomes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits.
    Waits {
        /// How often the homeserver took and dropped it.
        attempts: u32,
        /// Not before this time.
        due_at: Timestamp,
    },
    /// It is kept, with the reason.
    Parked(String),
}

/// An event that the homeserver took and that is not confirmed.
#[derive(Debug, Clone)]
pub(crate) struct SentRow {
    /// Its row.
    pub(crate) id: i64,
    /// Its room and id.
    pub(crate) event: RoomEvent,
    /// What it follows.
    pub(crate) prev_events: Vec<String>,
}

/// What keeping events changed.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What takes room that was not taken before.
    pub(crate) added: Vec<Share>,
    /// What gave its room back.
    pub(crate) replaced: Vec<Share>,
}

/// Keeps events in one commit, in this order. An event that is here already stays as it is, but that one without its
/// origin's proof makes way for one with it: an event's id says nothing about its signatures, so that anybody could
/// take its place with a copy that the homeserver refuses.
pub(crate) async fn hold(
    database: &Database,
    events: Vec<Aside>,
    now: Timestamp,
) -> Result<Kept, StoreError> {
    database
        .write(move |connection| {
            let Kept { mut added, mut replaced } = Kept::default();
            for aside in &events {
                replaced.extend(make_way(connection, aside)?);
                if insert(connection, aside, now)? {
                    added.push(Share {
                        origin: aside.origin.clone(),
                        is_proven: aside.is_proven,
                        count: 1,
                        bytes: aside.pdu.json.len() as u64,
                    });
                }
            }
            Ok(Kept { added, replaced })
        })
        .await
}

fn make_way(connection: &Connection, aside: &Aside) -> rusqlite::Result<Option<Share>> {
    let Some(event_id) = aside.pdu.event_id.as_ref().filter(|_| aside.is_proven) else {
        return Ok(None);
    };
    let sql = "DELETE FROM backlog WHERE room_id = ?1 AND event_id = ?2 AND state IN ('waiting', 'parked')
               AND (NOT is_proven OR reason = ?3) RETURNING origin, is_proven, 1, bytes";
    let room_id = &aside.pdu.room_id;
    connection
        .prepare_cached(sql)?
        .query_row([room_id, event_id, DAMAGED], overview::share)
        .optional()
}

fn insert(connection: &Connection, aside: &Aside, now: Timestamp) -> rusqlite::Result<bool> {
    let Some(event_id) = &aside.pdu.event_id else { return Ok(false) };
    let sql = "INSERT INTO backlog (room_id, event_id, state, reason, pdu, prev_events, sender, is_acl, origin,
               is_proven, attempts, due_at, arrived_at, bytes, sha256)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
               ON CONFLICT (room_id, event_id) DO NOTHING";
    let (state, reason, attempts, due_at) = match &aside.fate {
        Fate::Waits { attempts, due_at } => ("waiting", None, *attempts, *due_at),
        Fate::Parked(reason) => ("parked", Some(reason), 0, Timestamp::EPOCH),
    };
    let pdu = &aside.pdu;
    let prev_events = serde_json::to_string(&pdu.prev_events).expect("a list of texts is JSON");
    let added = connection.prepare_cached(sql)?.execute(params![
        pdu.room_id,
        event_id,
        state,
        reason,
        pdu.json.as_ref(),
        prev_events,
        pdu.sender.as_ref().map(ServerName::as_str),
        pdu.is_acl,
        aside.origin.as_str(),
        aside.is_proven,
        attempts,
        millis(due_at),
        millis(now),
        number(pdu.json.len() as u64),
        checksum(&pdu.json),
    ])?;
    if let Some(reason) = reason.filter(|_| added > 0) {
        count_parked(connection, 1)?;
        // It may have made way for itself.
        let event = (pdu.room_id.clone(), event_id.clone());
        later_receipts::event_ended(connection, &event, Some(reason), now)?;
    }
    Ok(added > 0)
}

fn count_parked(connection: &Connection, more: usize) -> rusqlite::Result<()> {
    super::inbox::count(connection, "events_parked", more)
}

/// The events that wait in a room, oldest first, and whether one that changes who may take part in it is with the
/// homeserver and not confirmed.
pub(crate) async fn of_room(
    database: &Database,
    room_id: String,
) -> Result<(Vec<Held>, bool), StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT id, event_id, prev_events, sender, is_acl, attempts, due_at, origin, is_proven
                       FROM backlog
                       WHERE room_id = ?1 AND state = 'waiting' ORDER BY id LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![room_id, EVENTS_PER_TURN], held)?;
            let held = rows.collect::<Result<_, _>>()?;
            let sql = "SELECT 1 FROM backlog WHERE room_id = ?1 AND state = 'sent' AND is_acl";
            Ok((held, connection.prepare_cached(sql)?.exists([room_id])?))
        })
        .await
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    Ok(Held {
        id: row.get(0)?,
        event_id: row.get(1)?,
        prev_events: prev_events(row, 2)?,
        sender: row.get::<_, Option<String>>(3)?.and_then(|name| name.parse().ok()),
        is_acl: row.get(4)?,
        attempts: row.get(5)?,
        due_at: time(row, 6)?,
        origin: server_name(row, 7)?,
        is_proven: row.get(8)?,
    })
}

fn prev_events(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<String>> {
    Ok(serde_json::from_str(&row.get::<_, String>(index)?).unwrap_or_default())
}

/// The PDUs of these rows, in this order; `None` for one that the disk has altered.
pub(crate) async fn bodies(
    database: &Database,
    ids: Vec<i64>,
) -> Result<Vec<Option<Bytes>>, StoreError> {
    database
        .read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT pdu, sha256 FROM backlog WHERE id = ?1")?;
            let body = |id| statement.query_row([id], |row| whole(row, 0, 1));
            ids.iter().map(body).map(|body| Ok(body?.map(Bytes::from))).collect()
        })
        .await
}

/// Rooms in which events wait that `origin` brought, at most `limit`.
pub(crate) async fn rooms_of(
    database: &Database,
    origin: ServerName,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT DISTINCT room_id FROM backlog
                       WHERE origin = ?1 AND is_proven AND state = 'waiting' LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![origin.as_str(), limit], |row| row.get(0))?;
            rows.collect()
        })
        .await
}

/// Those of `events` that are here, in whatever state.
pub(crate) async fn known(
    database: &Database,
    events: Vec<RoomEvent>,
) -> Result<Vec<RoomEvent>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT 1 FROM backlog WHERE room_id = ?1 AND event_id = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut known = Vec::new();
            for (room_id, event_id) in events {
                if statement.exists([&room_id, &event_id])? {
                    known.push((room_id, event_id));
                }
            }
            Ok(known)
        })
        .await
}

/// The homeserver took these.
pub(crate) async fn sent(database: &Database, ids: Vec<i64>) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE backlog SET state = 'sent' WHERE state = 'waiting' AND id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
        })
        .await
}

/// What was sent and not confirmed, in the order of arrival.
pub(crate) async fn unconfirmed(database: &Database) -> Result<Vec<SentRow>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT id, room_id, event_id, prev_events FROM backlog WHERE state = 'sent' ORDER BY id";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let event = (row.get(1)?, row.get(2)?);
                Ok(SentRow { id: row.get(0)?, event, prev_events: prev_events(row, 3)? })
            })?;
            rows.collect()
        })
        .await
}

/// The homeserver stored this one: removes it; what it was, and the room that it took.
pub(crate) async fn confirmed(
    database: &Database,
    id: i64,
    now: Timestamp,
) -> Result<Option<(RoomEvent, Share)>, StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM backlog WHERE id = ?1
                       RETURNING origin, is_proven, 1, bytes, room_id, event_id";
            let row = |row: &Row<'_>| Ok(((row.get(4)?, row.get(5)?), overview::share(row)?));
            let removed = connection.prepare_cached(sql)?.query_row([id], row).optional()?;
            super::inbox::count(connection, "events_confirmed", usize::from(removed.is_some()))?;
            if let Some((event, _)) = &removed {
                later_receipts::event_ended(connection, event, None, now)?;
            }
            Ok(removed)
        })
        .await
}

/// The homeserver took and dropped this one: notes what becomes of it, by its attempts so far.
pub(crate) async fn dropped(
    database: &Database,
    id: i64,
    reason: String,
    now: Timestamp,
    decide: impl FnOnce(u32) -> Fate + Send + 'static,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "SELECT attempts FROM backlog WHERE id = ?1 AND state <> 'parked'";
            let attempts: Option<u32> =
                connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
            let Some(attempts) = attempts else { return Ok(()) };
            match decide(attempts.saturating_add(1)) {
                Fate::Waits { attempts, due_at } => {
                    let sql = "UPDATE backlog SET state = 'waiting', reason = ?2, attempts = ?3, due_at = ?4
                               WHERE id = ?1";
                    let row = params![id, reason, attempts, millis(due_at)];
                    connection.prepare_cached(sql)?.execute(row).map(drop)
                }
                Fate::Parked(reason) => park_one(connection, id, &reason, now),
            }
        })
        .await
}

/// Parks rows, each with its reason.
pub(crate) async fn park(
    database: &Database,
    rows: Vec<(i64, String)>,
    now: Timestamp,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            rows.iter().try_for_each(|(id, reason)| park_one(connection, *id, reason, now))
        })
        .await
}

fn park_one(
    connection: &Connection,
    id: i64,
    reason: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE backlog SET state = 'parked', reason = ?2 WHERE id = ?1 AND state <> 'parked'
               RETURNING room_id, event_id";
    let event = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let parked: Option<RoomEvent> =
        connection.prepare_cached(sql)?.query_row(params![id, reason], event).optional()?;
    let Some(event) = parked else { return Ok(()) };
    count_parked(connection, 1)?;
    later_receipts::event_ended(connection, &event, Some(reason), now)
}
