//! What recipients said became of mail: the lines that they may speak of, and the copies that they end.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_relay_api::{
    ConfirmedDelivery, ConfirmedOutcome, DeliveryReceipt, MissingNumbers, PDU_ERROR_BYTES_MAX,
    parse_hex,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::super::number;
use super::super::seen::millis;
use super::super::trust;
use super::{count, drop_copy};

/// Copies that one transaction of receipts makes wanted: each is a write, and others wait for it. What is missing beyond is
/// told again, or due with the rest.
const WANTED_AT_ONCE: usize = 1_000;

/// Events with errors that are kept of one transaction, of 50 at most.
const ERRORS_MAX: usize = 5;

/// What is kept of a transaction's events that were not taken.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorSummary {
    /// How many.
    count: usize,
    /// Some of them, with what was said.
    some: BTreeMap<String, String>,
}

impl ErrorSummary {
    /// Of events with what was said of them, as JSON; `None` without any.
    pub(crate) fn of<'a>(errors: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
        let mut summary = Self::default();
        for (event_id, error) in errors {
            summary.count += 1;
            if summary.some.len() < ERRORS_MAX {
                summary.some.insert(short(event_id), short(error));
            }
        }
        (summary.count > 0).then(|| serde_json::to_string(&summary).unwrap_or_default())
    }
}

fn short(text: &str) -> String {
    let mut end = text.len().min(PDU_ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Enters what `from` said of the mail that was for it, and of nobody else's. Told twice it counts once.
pub(in crate::store) fn confirm(
    connection: &Connection,
    from: &ServerName,
    receipts: &[DeliveryReceipt],
    now: Timestamp,
) -> rusqlite::Result<()> {
    for receipt in receipts {
        for delivery in &receipt.deliveries {
            confirm_one(connection, from, delivery, now)?;
        }
    }
    let missing = receipts.iter().flat_map(|receipt| &receipt.missing);
    want(connection, from, missing, now)
}

fn confirm_one(
    connection: &Connection,
    from: &ServerName,
    delivery: &ConfirmedDelivery,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Some(sha256) = parse_hex::<32>(&delivery.content_sha256) else { return Ok(()) };
    let outcome = match delivery.outcome {
        ConfirmedOutcome::Delivered => "delivered",
        ConfirmedOutcome::Parked => "parked",
        ConfirmedOutcome::Waiting => return waits(connection, from, (delivery, sha256), now),
    };
    let errors = delivery.pdus.iter();
    let errors = errors.filter_map(|(id, pdu)| Some((id.as_str(), pdu.error.as_deref()?)));
    let errors = ErrorSummary::of(errors);
    let sql = "UPDATE ledger SET confirmed_at = ?4, confirmed_as = ?5, brought_by = ?6, errors = coalesce(?7, errors)
               WHERE destination = ?1 AND txn_id = ?2 AND content_sha256 = ?3 AND confirmed_at IS NULL
               RETURNING seq";
    let brought_by = delivery.relay.as_ref().map(ServerName::as_str);
    let row =
        params![from.as_str(), delivery.txn_id, sha256, millis(now), outcome, brought_by, errors];
    let seq: Option<i64> =
        connection.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
    let Some(seq) = seq else { return Ok(()) };
    count(connection, "confirmed", 1)?;
    drop_copy(connection, from, seq)?;
    if let Some(relay) = &delivery.relay {
        trust::restore(connection, (from, seq), relay)?;
    }
    Ok(())
}

/// Its recipient has it, and it has not ended. The copy stays until it has, for as long as any does; it is neither sent nor left
/// again, unless its recipient misses it: so what relays say of it counts no more than if it was handed over.
fn waits(
    connection: &Connection,
    from: &ServerName,
    (delivery, sha256): (&ConfirmedDelivery, [u8; 32]),
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger SET waits_since = coalesce(waits_since, ?4), brought_by = coalesce(brought_by, ?5)
               WHERE destination = ?1 AND txn_id = ?2 AND content_sha256 = ?3 AND confirmed_at IS NULL
               RETURNING seq";
    let brought_by = delivery.relay.as_ref().map(ServerName::as_str);
    let row = params![from.as_str(), delivery.txn_id, sha256, millis(now), brought_by];
    let seq: Option<i64> =
        connection.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
    let Some(seq) = seq else { return Ok(()) };
    let sql = "UPDATE kept_copies SET wanted_at = NULL, send_after = ?3, leave_after = ?3
               WHERE destination = ?1 AND seq = ?2";
    let row = params![from.as_str(), seq, millis(now.after(TIME_TO_LIVE))];
    connection.prepare_cached(sql)?.execute(row)?;
    let sql = "UPDATE ledger_holders SET said = 'gone' WHERE destination = ?1 AND seq = ?2";
    connection.prepare_cached(sql)?.execute(params![from.as_str(), seq])?;
    match &delivery.relay {
        Some(relay) => trust::restore(connection, (from, seq), relay),
        None => Ok(()),
    }
}

/// No relay had these numbers: their copies are due at once.
fn want<'a>(
    connection: &Connection,
    from: &ServerName,
    missing: impl Iterator<Item = &'a MissingNumbers>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "SELECT stream FROM installation";
    let stream: Option<String> =
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let ours = missing.filter(|missing| Some(&missing.stream) == stream.as_ref());
    let ranges = merged(ours.map(|missing| (missing.from, missing.through)).collect());
    // Without the index each range would be a look at all copies.
    let sql = "UPDATE kept_copies SET wanted_at = ?4, leave_after = NULL, send_after = NULL
               WHERE destination = ?1 AND seq IN
               (SELECT seq FROM kept_copies INDEXED BY kept_copies_unwanted
                WHERE destination = ?1 AND seq BETWEEN ?2 AND ?3 AND wanted_at IS NULL ORDER BY seq LIMIT ?5)
               RETURNING seq";
    let mut want = connection.prepare_cached(sql)?;
    let sql = "UPDATE ledger_holders SET missed_at = coalesce(missed_at, ?3) WHERE destination = ?1 AND seq = ?2";
    let mut missed = connection.prepare_cached(sql)?;
    let mut room = WANTED_AT_ONCE;
    for (first, last) in ranges {
        let (first, last, most) = (number(first), number(last), number(room as u64));
        let row = params![from.as_str(), first, last, millis(now), most];
        let wanted = want.query_map(row, |row| row.get(0))?;
        let wanted = wanted.collect::<rusqlite::Result<Vec<i64>>>()?;
        room -= wanted.len();
        for seq in wanted {
            missed.execute(params![from.as_str(), seq, millis(now)])?;
        }
        if room == 0 {
            break;
        }
    }
    Ok(())
}

/// The same numbers in ranges that have none in common, ascending.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_ranges_hold_the_same_numbers_once(
            ranges in prop::collection::vec((0..50u64, 0..50u64), 0..20),
        ) {
            let numbers = |ranges: &[(u64, u64)]| -> Vec<u64> {
                ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
            };
            let before: BTreeSet<u64> = numbers(&ranges).into_iter().collect();
            let after = numbers(&merged(ranges));
            prop_assert_eq!(after, before.into_iter().collect::<Vec<_>>());
        }
    }
}
