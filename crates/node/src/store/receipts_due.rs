//! What is to be confirmed to the origins of mail: queued in the commit that ends the mail, until a receipt has left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{
    ConfirmedDelivery, ConfirmedOutcome, DELIVERIES_MAX, DeliveryReceipt, MissingNumbers,
    PDU_ERROR_BYTES_MAX, PduResult, hex,
};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::holes::Hole;
use super::inbox::{server_name, time, unsigned};
use super::later_receipts;
use super::number;
use super::outbox::count;
use super::seen::{TransactionKey, millis};
use crate::inbox::mail::DIRECT;
use crate::inbox::readiness::RoomEvent;

/// Confirmations that wait for one origin; the oldest make room. One that was dropped is made anew when the mail comes again.
const OF_ORIGIN_MAX: u32 = 5_000;

/// Confirmations that wait for all: their events' ids take a few hundred bytes each.
const ALL_MAX: u32 = 50_000;

/// Reports of missing numbers that wait for one origin, of 1,000 holes that are remembered of all.
const MISSING_OF_ORIGIN_MAX: u32 = 50;

/// Rows between two looks for those that are too many.
const PRUNED_EVERY: i64 = 64;

/// Bytes of events in one receipt, beyond the first transaction's.
const EVENTS_BYTES_MAX: usize = 256 * 1024;

/// Mail that comes again within this time is not confirmed again: several relays bring the same.
const REPEATED_AFTER: Duration = Duration::from_secs(600);

/// A receipt that is to leave.
#[derive(Debug)]
pub(crate) struct Batch {
    /// What it says.
    pub(crate) receipt: DeliveryReceipt,
    confirmations: Vec<i64>,
    missing: Vec<i64>,
}

impl Batch {
    /// Whether there is nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.confirmations.is_empty() && self.missing.is_empty()
    }
}

/// How mail ended, but for events that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The homeserver has it.
    Delivered,
    /// All or some of it is parked.
    Parked,
}

/// What is to be told of one transaction.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    /// It.
    pub(super) key: &'a TransactionKey,
    /// Who brought it, if its origin did not.
    pub(super) relay: Option<&'a str>,
    /// What became of it, but for events that wait.
    pub(super) outcome: Ended,
    /// Its events, by id.
    pub(super) pdus: BTreeMap<String, PduResult>,
}

/// As the origin hears it.
fn confirmed(ended: Ended, pdus: &BTreeMap<String, PduResult>) -> ConfirmedOutcome {
    if pdus.values().any(|pdu| pdu.waits) {
        return ConfirmedOutcome::Waiting;
    }
    let is_any_parked = pdus.values().any(|pdu| pdu.error.is_some());
    match ended {
        Ended::Delivered if !is_any_parked => ConfirmedOutcome::Delivered,
        Ended::Delivered | Ended::Parked => ConfirmedOutcome::Parked,
    }
}

/// The word for it in this database.
pub(super) fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::Delivered => "delivered",
        Ended::Parked => "parked",
    }
}

/// The meaning of such a word.
pub(super) fn ended_as(word: &str) -> Ended {
    if word == "parked" { Ended::Parked } else { Ended::Delivered }
}

/// Events as they stand in a receipt.
pub(super) fn json(pdus: &BTreeMap<String, PduResult>) -> String {
    serde_json::to_string(pdus).unwrap_or_else(|_| "{}".to_owned())
}

/// Queues that the mail `key` from `source` has ended. Events that are parked are told as not taken, and those that wait as
/// waiting: when the last of them has ended, that is told as well.
pub(super) fn ended(
    connection: &Connection,
    (key, source): (&TransactionKey, &str),
    outcome: Ended,
    events: &[RoomEvent],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let relay = (source != DIRECT).then_some(source);
    let ending = Ending { key, relay, outcome, pdus: results(connection, events)? };
    later_receipts::keep(connection, &ending, events)?;
    queue(connection, &ending, now)
}

/// Queues what is to be told.
pub(super) fn queue(
    connection: &Connection,
    ending: &Ending<'_>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Ending { key, relay, outcome, pdus } = ending;
    let (ended_as, outcome) = match confirmed(*outcome, pdus) {
        ConfirmedOutcome::Delivered => ("delivered", "delivered"),
        ConfirmedOutcome::Parked => ("parked", "parked"),
        ConfirmedOutcome::Waiting => ("waiting", word(*outcome)),
    };
    let pdus = json(pdus);
    let sql = "INSERT OR REPLACE INTO due_confirmations (origin, txn_id, sha256, outcome, relay, ended_at, pdus)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let origin = key.origin.as_str();
    let row = params![origin, key.txn_id, key.sha256, outcome, relay, millis(now), pdus];
    connection.prepare_cached(sql)?.execute(row)?;
    let newest = connection.last_insert_rowid();
    let sql = "UPDATE seen SET receipted_at = ?4, ended_as = ?5
               WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3";
    let row = params![origin, key.txn_id, key.sha256, millis(now), ended_as];
    connection.prepare_cached(sql)?.execute(row)?;
    if newest % PRUNED_EVERY == 0 { prune(connection, &key.origin) } else { Ok(()) }
}

/// Mail that is known came again: its origin may not have heard how it ended. What has not ended is confirmed when it does.
pub(super) fn came_again(
    connection: &Connection,
    (key, source): (&TransactionKey, &str),
    now: Timestamp,
) -> rusqlite::Result<()> {
    let row = params![key.origin.as_str(), key.txn_id, key.sha256];
    let sql =
        "SELECT receipted_at, ended_as FROM seen WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3";
    let told = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let told: Option<(Option<i64>, Option<String>)> =
        connection.prepare_cached(sql)?.query_row(row, told).optional()?;
    let (told, said) = told.unwrap_or_default();
    let told = told.map(super::timestamp);
    if told.is_some_and(|at| now.since(at) < REPEATED_AFTER && at <= now) {
        return Ok(());
    }
    let sql = "SELECT state FROM inbox WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3
               AND state IN ('waiting', 'delivered', 'parked') LIMIT 1";
    let state: Option<String> =
        connection.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
    if matches!(state.as_deref(), Some("waiting" | "delivered"))
        || later_receipts::came_again(connection, key, now)?
    {
        return Ok(());
    }
    // What was parked and dropped by this node's operator since was not delivered.
    let outcome = match (state.as_deref(), said.as_deref()) {
        (Some("parked"), _) | (None, Some("parked")) => Ended::Parked,
        // How its events ended was not kept.
        (None, Some("waiting")) => return Ok(()),
        _ => Ended::Delivered,
    };
    ended(connection, (key, source), outcome, &[], now)
}

/// Queues that numbers never came.
pub(super) fn missing(connection: &Connection, hole: &Hole) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO due_missing (origin, stream, first_seq, last_seq) VALUES (?1, ?2, ?3, ?4)";
    let origin = hole.origin.as_str();
    let row = params![origin, hole.stream, number(hole.first), number(hole.last)];
    connection.prepare_cached(sql)?.execute(row)?;
    let sql = "DELETE FROM due_missing WHERE id IN (SELECT id FROM due_missing WHERE origin = ?1
               ORDER BY id DESC LIMIT -1 OFFSET ?2)";
    connection.prepare_cached(sql)?.execute(params![origin, MISSING_OF_ORIGIN_MAX])?;
    let sql = "DELETE FROM due_missing WHERE id IN (SELECT id FROM due_missing
               ORDER BY id DESC LIMIT -1 OFFSET 1000)";
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn results(
    connection: &Connection,
    events: &[RoomEvent],
) -> rusqlite::Result<BTreeMap<String, PduResult>> {
    let sql = "SELECT state, reason FROM backlog WHERE room_id = ?1 AND event_id = ?2";
    let mut aside = connection.prepare_cached(sql)?;
    let mut results = BTreeMap::new();
    for (room_id, event_id) in events {
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let row: Option<(String, Option<String>)> =
            aside.query_row([room_id, event_id], row).optional()?;
        let result = match row {
            None => PduResult::default(),
            Some((state, reason)) if state == "parked" => {
                let error = Some(short(reason.unwrap_or(state)));
                PduResult { error, waits: false }
            }
            Some(_) => PduResult { error: None, waits: true },
        };
        results.insert(event_id.clone(), result);
    }
    Ok(results)
}

/// A reason as a receipt has it.
pub(super) fn short(mut text: String) -> String {
    let mut end = text.len().min(PDU_ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn prune(connection: &Connection, origin: &ServerName) -> rusqlite::Result<()> {
    let sql = "DELETE FROM due_confirmations WHERE id IN (SELECT id FROM due_confirmations WHERE origin = ?1
               ORDER BY id DESC LIMIT -1 OFFSET ?2)";
    let of_origin = params![origin.as_str(), OF_ORIGIN_MAX];
    let mut dropped = connection.prepare_cached(sql)?.execute(of_origin)?;
    let sql = "DELETE FROM due_confirmations WHERE id IN (SELECT id FROM due_confirmations
               ORDER BY id DESC LIMIT -1 OFFSET ?1)";
    dropped += connection.prepare_cached(sql)?.execute([ALL_MAX])?;
    count(connection, "receipts_dropped", dropped)
}

/// The origins for which something waits.
pub(crate) async fn origins(database: &Database) -> Result<BTreeSet<ServerName>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT DISTINCT origin FROM due_confirmations UNION SELECT origin FROM due_missing";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map([], |row| server_name(row, 0))?.collect()
        })
        .await
}

/// What to tell `origin` in one receipt, the oldest first.
pub(crate) async fn batch(database: &Database, origin: ServerName) -> Result<Batch, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT id, stream, first_seq, last_seq FROM due_missing WHERE origin = ?1 ORDER BY id LIMIT ?2";
            let row = params![origin.as_str(), MISSING_OF_ORIGIN_MAX];
            let mut statement = connection.prepare_cached(sql)?;
            let missing = statement.query_map(row, missing_row)?;
            let (missing_ids, missing): (Vec<_>, Vec<_>) =
                missing.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().unzip();
            let sql = "SELECT id, txn_id, sha256, outcome, relay, ended_at, pdus FROM due_confirmations
                       WHERE origin = ?1 ORDER BY id LIMIT ?2";
            let most = DELIVERIES_MAX - missing.len();
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![origin.as_str(), number(most as u64)])?;
            let (mut ids, mut deliveries, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let pdus: String = row.get(6)?;
                bytes += pdus.len();
                if bytes > EVENTS_BYTES_MAX && !ids.is_empty() {
                    break;
                }
                ids.push(row.get(0)?);
                deliveries.push(delivery(row, &pdus)?);
            }
            let receipt = DeliveryReceipt { deliveries, missing };
            Ok(Batch { receipt, confirmations: ids, missing: missing_ids })
        })
        .await
}

fn missing_row(row: &Row<'_>) -> rusqlite::Result<(i64, MissingNumbers)> {
    let (stream, from, through) = (row.get(1)?, unsigned(row, 2)?, unsigned(row, 3)?);
    Ok((row.get(0)?, MissingNumbers { stream, from, through }))
}

fn delivery(row: &Row<'_>, pdus: &str) -> rusqlite::Result<ConfirmedDelivery> {
    let pdus = serde_json::from_str(pdus).unwrap_or_default();
    let outcome = confirmed(ended_as(&row.get::<_, String>(3)?), &pdus);
    Ok(ConfirmedDelivery {
        txn_id: row.get(1)?,
        content_sha256: hex(&row.get::<_, [u8; 32]>(2)?),
        outcome,
        relay: row.get::<_, Option<String>>(4)?.and_then(|relay| relay.parse().ok()),
        at: time(row, 5)?,
        pdus,
    })
}

/// A receipt has left: what it said waits no longer. What ended anew meanwhile does.
pub(crate) async fn sent(database: &Database, batch: Batch) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let mut told =
                connection.prepare_cached("DELETE FROM due_confirmations WHERE id = ?1")?;
            for id in &batch.confirmations {
                told.execute([id])?;
            }
            let mut told = connection.prepare_cached("DELETE FROM due_missing WHERE id = ?1")?;
            for id in &batch.missing {
                told.execute([id])?;
            }
            count(connection, "receipts_sent", 1)
        })
        .await
}

/// Drops what ended before `before` and could not be told: nobody keeps a copy of it any longer.
pub(crate) async fn drop_old(database: &Database, before: Timestamp) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "DELETE FROM due_confirmations WHERE ended_at < ?1";
            let dropped = connection.prepare_cached(sql)?.execute([millis(before)])?;
            count(connection, "receipts_dropped", dropped)
        })
        .await
}
