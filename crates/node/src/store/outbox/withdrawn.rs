//! What our own outgoing relays need not deliver any more, and whether they were told.

use std::collections::BTreeSet;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Row, params};

use super::super::inbox::{server_name, unsigned};
use super::super::number;
use super::super::seen::millis;

/// A transaction that has arrived, and that a relay took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToWithdraw {
    /// Its number.
    pub(crate) seq: u64,
    /// Its id.
    pub(crate) txn_id: String,
    /// SHA-256 of its canonical content.
    pub(crate) content_sha256: [u8; 32],
}

/// For whom `relay` took mail.
pub(crate) async fn destinations(
    database: &Database,
    relay: ServerName,
) -> Result<BTreeSet<ServerName>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT DISTINCT destination FROM ledger_holders WHERE relay = ?1";
            let name = |row: &Row<'_>| server_name(row, 0);
            connection.prepare_cached(sql)?.query_map([relay.as_str()], name)?.collect()
        })
        .await
}

/// The first `limit` of those that `relay` took for `destination` and that have arrived since, of which it neither said nor was told
/// that.
pub(crate) async fn to_withdraw(
    database: &Database,
    (relay, destination): (ServerName, ServerName),
    limit: usize,
) -> Result<Vec<ToWithdraw>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT seq, txn_id, content_sha256
                       FROM ledger_holders JOIN ledger USING (destination, seq)
                       WHERE relay = ?1 AND destination = ?2 AND ifnull(said, 'held') = 'held'
                       AND (delivered_at IS NOT NULL OR confirmed_at IS NOT NULL)
                       ORDER BY seq LIMIT ?3";
            let row = params![relay.as_str(), destination.as_str(), number(limit as u64)];
            let mail = |row: &Row<'_>| {
                Ok(ToWithdraw {
                    seq: unsigned(row, 0)?,
                    txn_id: row.get(1)?,
                    content_sha256: row.get(2)?,
                })
            };
            connection.prepare_cached(sql)?.query_map(row, mail)?.collect()
        })
        .await
}

/// `relay` was told of these: it knows that their recipient has them, as if it had said so.
pub(crate) async fn withdrawn(
    database: &Database,
    (relay, destination): (ServerName, ServerName),
    mail: Vec<ToWithdraw>,
    now: Timestamp,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE ledger_holders SET said = 'gone', asked_at = ?4
                       WHERE destination = ?1 AND seq = ?2 AND relay = ?3";
            let mut told = connection.prepare_cached(sql)?;
            let (relay, destination) = (relay.as_str(), destination.as_str());
            for ToWithdraw { seq, .. } in &mail {
                told.execute(params![destination, number(*seq), relay, millis(now)])?;
            }
            Ok(())
        })
        .await
}
