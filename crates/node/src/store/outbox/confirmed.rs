//! What recipients said became of mail: the lines that they may speak of, and the copies that they end.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
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
        for missing in &receipt.missing {
            want(connection, from, missing, now)?;
        }
    }
    Ok(())
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

/// No relay had these numbers: their copies are due at once.
fn want(
    connection: &Connection,
    from: &ServerName,
    missing: &MissingNumbers,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE kept_copies SET wanted_at = ?4 WHERE destination = ?1 AND seq BETWEEN ?2 AND ?3
               AND wanted_at IS NULL AND ?5 = (SELECT stream FROM installation)";
    let (first, last) = (number(missing.from), number(missing.through));
    let row = params![from.as_str(), first, last, millis(now), missing.stream];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}
