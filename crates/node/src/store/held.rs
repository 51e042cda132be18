//! Events that are held for the homeserver: the backlog of its rooms, and what came in capsules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::Timestamp;
use restante_relay_api::limits::{MEMORY_BEYOND_TIME_TO_LIVE, TIME_TO_LIVE};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::checksum::{checksum, whole};
use super::number;

/// Events that are held at most: a hundred capsules of the largest size.
const EVENTS_MAX: u64 = 100_000;

/// Bytes that they take at most.
const BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How long an event of a capsule is kept: as long as mail that may need it.
const KEPT: Duration = TIME_TO_LIVE.saturating_add(MEMORY_BEYOND_TIME_TO_LIVE);

/// Old events that go with each write: more than usually come, so that the table shrinks.
const FORGOTTEN_AT_ONCE: u32 = 100;

/// Why an event is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldSource {
    /// Its delivery waits for a gap to close. Kept until it is [`forget`]ten.
    Backlog,
    /// It came along with mail. Kept as long as mail may be on its way that needs it.
    Capsule,
}

/// An event that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldEvent {
    /// Its room.
    pub(crate) room_id: String,
    /// Its id.
    pub(crate) event_id: String,
    /// The events that it follows.
    pub(crate) prev_events: Vec<String>,
    /// Its JSON.
    pub(crate) pdu: Bytes,
    /// Why it is held.
    pub(crate) source: HeldSource,
    /// Whether it came with the proof of who brought it.
    pub(crate) is_proven: bool,
}

/// Whether events were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// All are held, durably.
    Kept,
    /// There is no room for them; none was taken.
    Full,
}

impl HeldSource {
    fn as_str(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Capsule => "capsule",
        }
    }
}

/// Holds `events`, all or none; durable on return. One that is held already stays, but that one without proof makes way
/// for one with it: an event's id says nothing about its signatures. What was in a capsule joins the backlog when it
/// comes as such.
pub(crate) async fn note(
    database: &Database,
    events: Vec<HeldEvent>,
    now: Timestamp,
) -> Result<Noted, StoreError> {
    database
        .write(move |connection| {
            if !have_room(connection, &events)? {
                return Ok(Noted::Full);
            }
            events.iter().try_for_each(|event| insert(connection, event, now))?;
            Ok(Noted::Kept)
        })
        .await
}

fn have_room(connection: &Connection, events: &[HeldEvent]) -> rusqlite::Result<bool> {
    let (count, bytes): (i64, i64) = connection
        .prepare_cached("SELECT count, bytes FROM held_totals")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let added: u64 = events.iter().map(|event| event.pdu.len() as u64).sum();
    let count = count.unsigned_abs() + events.len() as u64;
    Ok(count <= EVENTS_MAX && bytes.unsigned_abs() + added <= BYTES_MAX)
}

fn insert(connection: &Connection, event: &HeldEvent, now: Timestamp) -> rusqlite::Result<()> {
    drop_damaged(connection, event)?;
    let prev_events = serde_json::to_string(&event.prev_events).expect("strings are always JSON");
    // Of the two sources `backlog` is the smaller word, and the stronger one.
    let sql = "INSERT INTO held_events (room_id, event_id, prev_events, pdu, source, arrived_at, is_proven, sha256)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT (room_id, event_id) DO UPDATE SET
               source = min(source, excluded.source), arrived_at = excluded.arrived_at,
               pdu = iif(excluded.is_proven > is_proven, excluded.pdu, pdu),
               sha256 = iif(excluded.is_proven > is_proven, excluded.sha256, sha256),
               is_proven = max(is_proven, excluded.is_proven)";
    connection
        .prepare_cached(sql)?
        .execute(params![
            event.room_id,
            event.event_id,
            prev_events,
            event.pdu.as_ref(),
            event.source.as_str(),
            number(now.as_millis()),
            event.is_proven,
            checksum(&event.pdu),
        ])
        .map(drop)
}

/// A copy that the disk has altered makes way for this one.
fn drop_damaged(connection: &Connection, event: &HeldEvent) -> rusqlite::Result<()> {
    let (room_id, event_id) = (&event.room_id, &event.event_id);
    let sql = "SELECT pdu, sha256 FROM held_events WHERE room_id = ?1 AND event_id = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let there = statement.query_row([room_id, event_id], |row| whole(row, 0, 1)).optional()?;
    if there.is_some_and(|body| body.is_none()) {
        let sql = "DELETE FROM held_events WHERE room_id = ?1 AND event_id = ?2";
        connection.prepare_cached(sql)?.execute([room_id, event_id])?;
    }
    Ok(())
}

/// Forgets events of capsules that are too old, one step of it; how many.
pub(crate) async fn prune(database: &Database, now: Timestamp) -> Result<usize, StoreError> {
    let before = number(now.before(KEPT).as_millis());
    let sql = "DELETE FROM held_events WHERE rowid IN (SELECT rowid FROM held_events
               WHERE source = 'capsule' AND arrived_at < ?1 LIMIT ?2)";
    let prune = move |connection: &Connection| {
        connection.prepare_cached(sql)?.execute(params![before, FORGOTTEN_AT_ONCE])
    };
    database.write(prune).await
}

/// Lets go of events: they are in the homeserver, or parked.
pub(crate) async fn forget(
    database: &Database,
    room_id: String,
    event_ids: Vec<String>,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM held_events WHERE room_id = ?1 AND event_id = ?2";
            let mut delete = connection.prepare_cached(sql)?;
            event_ids.iter().try_for_each(|id| delete.execute(params![room_id, id]).map(drop))
        })
        .await
}

/// One event, whatever its room.
pub(crate) async fn event(
    database: &Database,
    event_id: String,
) -> Result<Option<HeldEvent>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT room_id, event_id, prev_events, pdu, source, is_proven, sha256 FROM held_events
                       WHERE event_id = ?1 LIMIT 1";
            connection.prepare_cached(sql)?.query_row([event_id], held).optional().map(Option::flatten)
        })
        .await
}

/// The held events of a room from `latest` down, themselves included, without what lies behind `earliest`; `None`
/// when there are more than `count_max`.
pub(crate) async fn reachable(
    database: &Database,
    room_id: String,
    earliest: BTreeSet<String>,
    latest: Vec<String>,
    count_max: usize,
) -> Result<Option<BTreeMap<String, HeldEvent>>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT room_id, event_id, prev_events, pdu, source, is_proven, sha256 FROM held_events
                       WHERE room_id = ?1 AND event_id = ?2";
            let mut by_id = connection.prepare_cached(sql)?;
            let mut met: BTreeSet<String> = earliest;
            let mut due: VecDeque<String> = latest.into();
            let mut events = BTreeMap::new();
            while let Some(event_id) = due.pop_front() {
                if !met.insert(event_id.clone()) {
                    continue;
                }
                let event = by_id.query_row(params![room_id, event_id], held).optional()?;
                let Some(event) = event.flatten() else { continue };
                if events.len() == count_max {
                    return Ok(None);
                }
                due.extend(event.prev_events.iter().cloned());
                events.insert(event_id, event);
            }
            Ok(Some(events))
        })
        .await
}

/// One that the disk has altered is as good as none; a good copy takes its place.
fn held(row: &Row<'_>) -> rusqlite::Result<Option<HeldEvent>> {
    let prev_events: String = row.get(2)?;
    let source: String = row.get(4)?;
    let event_id: String = row.get(1)?;
    let Some(pdu) = whole(row, 3, 6)? else {
        tracing::error!(event.id = event_id, "a held event is damaged; check the disk");
        return Ok(None);
    };
    let is_backlog = source == HeldSource::Backlog.as_str();
    Ok(Some(HeldEvent {
        room_id: row.get(0)?,
        event_id,
        prev_events: serde_json::from_str(&prev_events).unwrap_or_default(),
        pdu: pdu.into(),
        source: if is_backlog { HeldSource::Backlog } else { HeldSource::Capsule },
        is_proven: row.get(5)?,
    }))
}
