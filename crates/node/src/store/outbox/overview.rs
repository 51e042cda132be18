//! What the operator sees of what was left with relays.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::inbox::{server_name, time, unsigned};
use super::super::{number, timestamp};

/// Destinations that are shown, by name; of those beyond, one by its name.
const DESTINATIONS_MAX: u32 = 1_000;

/// Totals since the database was made, and what all copies take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// By the names in the schema.
    pub(crate) by_name: BTreeMap<String, u64>,
    /// When the oldest copy was left.
    pub(crate) oldest_at: Option<Timestamp>,
    /// Relays whose word does not count, each with one destination.
    pub(crate) distrusted: u64,
}

impl Totals {
    /// One of them.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.by_name.get(name).copied().unwrap_or(0)
    }
}

/// What was left for one destination and is not known to have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DestinationTotals {
    /// The destination.
    pub(crate) destination: ServerName,
    /// Transactions that relays hold, of which nobody said that they arrived.
    pub(crate) unconfirmed: u64,
    /// Of how many a copy is kept.
    pub(crate) copies: u64,
    /// What the copies take, compressed.
    pub(crate) bytes: u64,
    /// How many nobody is known to hold, or are missed.
    pub(crate) wanted: u64,
    /// When the oldest of the copies was left.
    pub(crate) oldest_at: Option<Timestamp>,
}

/// One transaction that was left with relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxLine {
    /// Its number.
    pub(crate) seq: u64,
    /// Its id.
    pub(crate) txn_id: String,
    /// When the homeserver first sent it.
    pub(crate) first_at: Timestamp,
    /// When the destination itself took it.
    pub(crate) delivered_at: Option<Timestamp>,
    /// When its recipient's word came.
    pub(crate) confirmed_at: Option<Timestamp>,
    /// What that says.
    pub(crate) confirmed_as: Option<String>,
    /// Since when its recipient has it and says that events of it wait there.
    pub(crate) waits_since: Option<Timestamp>,
    /// The relay that brought it first.
    pub(crate) brought_by: Option<String>,
    /// JSON: events that were not taken.
    pub(crate) errors: Option<String>,
    /// The copy.
    pub(crate) copy: Option<CopyLine>,
    /// Who holds it.
    pub(crate) holders: Vec<HolderLine>,
}

/// What is told of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyLine {
    /// What it takes, compressed.
    pub(crate) bytes: u64,
    /// Since when nobody is known to hold the transaction, or it is missed.
    pub(crate) wanted_at: Option<Timestamp>,
    /// Why the destination would not take it.
    pub(crate) refused: Option<String>,
}

/// What is told of a relay that holds a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HolderLine {
    /// The relay.
    pub(crate) relay: ServerName,
    /// When it took it.
    pub(crate) since: Timestamp,
    /// Its receipt, signed JSON.
    pub(crate) receipt: Option<String>,
    /// When it was last asked about it.
    pub(crate) asked_at: Option<Timestamp>,
    /// What it said: `held` or `gone`.
    pub(crate) said: Option<String>,
}

/// Which transactions are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that are not known to have arrived.
    Unconfirmed,
    /// All that the ledger remembers.
    All,
}

/// The totals.
pub(crate) async fn totals(database: &Database) -> Result<Totals, StoreError> {
    database
        .read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name, value FROM outbox_totals")?;
            let by_name = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row, 1)?)))?;
            let by_name = by_name.collect::<rusqlite::Result<_>>()?;
            let sql = "SELECT kept_at FROM kept_copies ORDER BY id LIMIT 1";
            let mut oldest = connection.prepare_cached(sql)?;
            let oldest_at = oldest.query_row([], |row| time(row, 0)).optional()?;
            let sql = "SELECT count(*) FROM distrusted_relays";
            let distrusted = connection.query_row(sql, [], |row| unsigned(row, 0))?;
            Ok(Totals { by_name, oldest_at, distrusted })
        })
        .await
}

/// The destinations for which something is not known to have arrived, by name.
pub(crate) async fn destinations(
    database: &Database,
) -> Result<Vec<DestinationTotals>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT destination, count(*) FROM ledger AS line
                       WHERE delivered_at IS NULL AND confirmed_at IS NULL AND (EXISTS
                       (SELECT 1 FROM ledger_holders WHERE destination = line.destination AND seq = line.seq)
                       OR EXISTS (SELECT 1 FROM kept_copies WHERE destination = line.destination AND seq = line.seq))
                       GROUP BY destination ORDER BY destination LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let open = statement
                .query_map([DESTINATIONS_MAX], |row| Ok((server_name(row, 0)?, unsigned(row, 1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            open.into_iter().map(|(name, count)| of_destination(connection, name, count)).collect()
        })
        .await
}

fn of_destination(
    connection: &Connection,
    destination: ServerName,
    unconfirmed: u64,
) -> rusqlite::Result<DestinationTotals> {
    let sql = "SELECT count(*), ifnull(sum(length(content) + ifnull(length(capsule), 0)), 0),
               count(wanted_at), min(kept_at)
               FROM kept_copies WHERE destination = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([destination.as_str()], |row| {
        Ok(DestinationTotals {
            destination: destination.clone(),
            unconfirmed,
            copies: unsigned(row, 0)?,
            bytes: unsigned(row, 1)?,
            wanted: unsigned(row, 2)?,
            oldest_at: maybe_time(row, 3)?,
        })
    })
}

/// Up to `limit` transactions for `destination` above the number `after`.
pub(crate) async fn lines(
    database: &Database,
    destination: ServerName,
    which: Which,
    (after, limit): (u64, u32),
) -> Result<Vec<OutboxLine>, StoreError> {
    let open = match which {
        Which::Unconfirmed => "AND delivered_at IS NULL AND confirmed_at IS NULL",
        Which::All => "",
    };
    database
        .read(move |connection| {
            let sql = format!(
                "SELECT line.seq, txn_id, first_at, delivered_at, confirmed_at, confirmed_as, brought_by, errors,
                 length(content) + ifnull(length(capsule), 0), wanted_at, refused, waits_since
                 FROM ledger AS line LEFT JOIN kept_copies AS copy
                 ON copy.destination = line.destination AND copy.seq = line.seq
                 WHERE line.destination = ?1 AND line.seq > ?2 {open} AND (copy.id IS NOT NULL OR EXISTS
                 (SELECT 1 FROM ledger_holders WHERE destination = line.destination AND seq = line.seq))
                 ORDER BY line.seq LIMIT ?3"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let row = params![destination.as_str(), number(after), limit];
            let mut lines =
                statement.query_map(row, line)?.collect::<rusqlite::Result<Vec<_>>>()?;
            for line in &mut lines {
                line.holders = holders(connection, &destination, line.seq)?;
            }
            Ok(lines)
        })
        .await
}

fn line(row: &Row<'_>) -> rusqlite::Result<OutboxLine> {
    let bytes: Option<i64> = row.get(8)?;
    let (wanted_at, refused) = (maybe_time(row, 9)?, row.get(10)?);
    Ok(OutboxLine {
        seq: unsigned(row, 0)?,
        txn_id: row.get(1)?,
        first_at: time(row, 2)?,
        delivered_at: maybe_time(row, 3)?,
        confirmed_at: maybe_time(row, 4)?,
        confirmed_as: row.get(5)?,
        waits_since: maybe_time(row, 11)?,
        brought_by: row.get(6)?,
        errors: row.get(7)?,
        copy: bytes.map(|bytes| CopyLine { bytes: bytes.unsigned_abs(), wanted_at, refused }),
        holders: Vec::new(),
    })
}

fn holders(
    connection: &Connection,
    destination: &ServerName,
    seq: u64,
) -> rusqlite::Result<Vec<HolderLine>> {
    let sql = "SELECT relay, since, receipt, asked_at, said FROM ledger_holders
               WHERE destination = ?1 AND seq = ?2 ORDER BY relay";
    let holder = |row: &Row<'_>| {
        let receipt: Option<Vec<u8>> = row.get(2)?;
        Ok(HolderLine {
            relay: server_name(row, 0)?,
            since: time(row, 1)?,
            receipt: receipt.and_then(|json| String::from_utf8(json).ok()),
            asked_at: maybe_time(row, 3)?,
            said: row.get(4)?,
        })
    };
    let row = params![destination.as_str(), number(seq)];
    connection.prepare_cached(sql)?.query_map(row, holder)?.collect()
}

fn maybe_time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(timestamp))
}
