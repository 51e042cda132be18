//! Mail whose origin heard that events of it wait in a room's backlog: what it is told when the last of them has ended.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::PduResult;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::inbox::server_name;
use super::outbox::count;
use super::receipts_due::{self, Ending, short};
use super::seen::TransactionKey;
use crate::inbox::readiness::RoomEvent;

/// Mail that waits for one origin to hear of it; the oldest makes room. A backlog holds that many events of few.
const OF_ORIGIN_MAX: u32 = 2_000;

/// Mail of all origins.
const ALL_MAX: u32 = 20_000;

/// Events of one transaction that are waited for: it has fifty at most.
const EVENTS_MAX: usize = 100;

/// Transactions of one origin that wait for the same event. A homeserver repeats one under another id after a restart.
const OF_EVENT_MAX: u32 = 16;

/// Rows between two looks for those that are too many.
const PRUNED_EVERY: i64 = 64;

/// Keeps what is to be told of this mail, if any of its events waits. Beyond the bounds nothing is kept, and its origin keeps its
/// copy for as long as it does.
pub(super) fn keep(
    connection: &Connection,
    Ending { key, relay, outcome, pdus }: &Ending<'_>,
    events: &[RoomEvent],
) -> rusqlite::Result<()> {
    forget(connection, key)?;
    let waits = |(_, event_id): &&RoomEvent| pdus.get(event_id).is_some_and(|pdu| pdu.waits);
    let awaited: Vec<&RoomEvent> = events.iter().filter(waits).collect();
    if awaited.is_empty() || awaited.len() > EVENTS_MAX || is_common(connection, key, &awaited)? {
        return Ok(());
    }
    let sql = "INSERT INTO later_receipts (origin, txn_id, sha256, relay, outcome, pdus) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (origin, pdus) = (key.origin.as_str(), receipts_due::json(pdus));
    let outcome = receipts_due::word(*outcome);
    let row = params![origin, key.txn_id, key.sha256, relay, outcome, pdus];
    connection.prepare_cached(sql)?.execute(row)?;
    let receipt = connection.last_insert_rowid();
    let sql =
        "INSERT OR IGNORE INTO awaited_events (room_id, event_id, receipt) VALUES (?1, ?2, ?3)";
    let mut insert = connection.prepare_cached(sql)?;
    for (room_id, event_id) in awaited {
        insert.execute(params![room_id, event_id, receipt])?;
    }
    if receipt % PRUNED_EVERY == 0 { prune(connection, &key.origin) } else { Ok(()) }
}

/// Whether one of these events is waited for by as much mail of that origin as may be.
fn is_common(
    connection: &Connection,
    key: &TransactionKey,
    awaited: &[&RoomEvent],
) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM awaited_events JOIN later_receipts ON id = receipt
               WHERE room_id = ?1 AND event_id = ?2 AND origin = ?3";
    let mut count = connection.prepare_cached(sql)?;
    for (room_id, event_id) in awaited {
        let row = params![room_id, event_id, key.origin.as_str()];
        if count.query_row(row, |row| row.get::<_, u32>(0))? >= OF_EVENT_MAX {
            return Ok(true);
        }
    }
    Ok(false)
}

fn forget(connection: &Connection, key: &TransactionKey) -> rusqlite::Result<()> {
    let sql =
        "DELETE FROM later_receipts WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3 RETURNING id";
    let row = params![key.origin.as_str(), key.txn_id, key.sha256];
    let id: Option<i64> =
        connection.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
    let sql = "DELETE FROM awaited_events WHERE receipt = ?1";
    id.map_or(Ok(()), |id| connection.prepare_cached(sql)?.execute([id]).map(drop))
}

fn prune(connection: &Connection, origin: &ServerName) -> rusqlite::Result<()> {
    let sql =
        "DELETE FROM later_receipts WHERE id IN (SELECT id FROM later_receipts WHERE origin = ?1
               ORDER BY id DESC LIMIT -1 OFFSET ?2)";
    let of_origin = params![origin.as_str(), OF_ORIGIN_MAX];
    let mut dropped = connection.prepare_cached(sql)?.execute(of_origin)?;
    let sql = "DELETE FROM later_receipts WHERE id IN (SELECT id FROM later_receipts
               ORDER BY id DESC LIMIT -1 OFFSET ?1)";
    dropped += connection.prepare_cached(sql)?.execute([ALL_MAX])?;
    if dropped > 0 {
        let sql = "DELETE FROM awaited_events WHERE receipt NOT IN (SELECT id FROM later_receipts)";
        connection.prepare_cached(sql)?.execute([])?;
    }
    count(connection, "receipts_dropped", dropped)
}

/// An event of a room's backlog has ended: delivered, or parked with this reason. What waited for it and nothing else is told.
pub(super) fn event_ended(
    connection: &Connection,
    (room_id, event_id): &RoomEvent,
    parked: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM awaited_events WHERE room_id = ?1 AND event_id = ?2 RETURNING receipt";
    let mut awaited = connection.prepare_cached(sql)?;
    let receipts = awaited.query_map([room_id, event_id], |row| row.get(0))?;
    for receipt in receipts.collect::<rusqlite::Result<Vec<i64>>>()? {
        let Some(later) = load(connection, "id = ?1", params![receipt])? else { continue };
        let Later { key, relay, outcome, mut pdus } = later;
        let error = parked.map(|reason| short(reason.to_owned()));
        pdus.insert(event_id.clone(), PduResult { error, waits: false });
        let is_awaited = "SELECT 1 FROM awaited_events WHERE receipt = ?1";
        if connection.prepare_cached(is_awaited)?.exists([receipt])? {
            let sql = "UPDATE later_receipts SET pdus = ?2 WHERE id = ?1";
            let row = params![receipt, receipts_due::json(&pdus)];
            connection.prepare_cached(sql)?.execute(row)?;
            continue;
        }
        forget(connection, &key)?;
        let ending = Ending { key: &key, relay: relay.as_deref(), outcome, pdus };
        receipts_due::queue(connection, &ending, now)?;
    }
    Ok(())
}

/// The mail comes again while events of it wait: that is told again. Whether it is so.
pub(super) fn came_again(
    connection: &Connection,
    key: &TransactionKey,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let by_key = params![key.origin.as_str(), key.txn_id, key.sha256];
    let later = load(connection, "origin = ?1 AND txn_id = ?2 AND sha256 = ?3", by_key)?;
    let Some(Later { key, relay, outcome, pdus }) = later else { return Ok(false) };
    let ending = Ending { key: &key, relay: relay.as_deref(), outcome, pdus };
    receipts_due::queue(connection, &ending, now)?;
    Ok(true)
}

struct Later {
    key: TransactionKey,
    relay: Option<String>,
    outcome: receipts_due::Ended,
    pdus: BTreeMap<String, PduResult>,
}

fn load(
    connection: &Connection,
    which: &'static str,
    named: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Option<Later>> {
    let sql = format!(
        "SELECT origin, txn_id, sha256, relay, outcome, pdus FROM later_receipts WHERE {which}"
    );
    let later = |row: &Row<'_>| {
        let (origin, txn_id, sha256) = (server_name(row, 0)?, row.get(1)?, row.get(2)?);
        Ok(Later {
            key: TransactionKey { origin, txn_id, sha256 },
            relay: row.get(3)?,
            outcome: receipts_due::ended_as(&row.get::<_, String>(4)?),
            pdus: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
        })
    };
    connection.prepare_cached(&sql)?.query_row(named, later).optional()
}
