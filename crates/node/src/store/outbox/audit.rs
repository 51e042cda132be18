//! What relays are asked about, and what they said.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::Receipt;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, Row, params};

use super::super::inbox::{server_name, time, unsigned};
use super::super::number;
use super::super::seen::millis;
use super::super::trust::{self, Loss};
use crate::outbox::rule::{Blame, HolderStep};
use crate::outbox::trust::Judgement;

/// A transaction that a relay is to be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToAsk {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// Its number.
    pub(crate) seq: u64,
    /// Its id.
    pub(crate) txn_id: String,
    /// SHA-256 of its canonical content.
    pub(crate) content_sha256: [u8; 32],
    /// When the relay took it.
    pub(crate) since: Timestamp,
    /// Until when it said that it keeps it.
    pub(crate) expires_at: Option<Timestamp>,
}

/// When relays are asked: first this long after they took it, and then at this interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    /// The first time.
    pub(crate) first: Duration,
    /// Between two times.
    pub(crate) then: Duration,
}

/// The relays that hold copies' transactions, with when each is to be asked next.
pub(crate) async fn relays(
    database: &Database,
    intervals: Intervals,
) -> Result<Vec<(ServerName, Timestamp)>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT relay, min(coalesce(asked_at + ?2, since + ?1))
                 FROM kept_copies JOIN ledger_holders USING (destination, seq) GROUP BY relay";
            let row = params![duration(intervals.first), duration(intervals.then)];
            let mut statement = connection.prepare_cached(sql)?;
            let relays =
                statement.query_map(row, |row| Ok((server_name(row, 0)?, time(row, 1)?)))?;
            relays.collect()
        })
        .await
}

/// Up to `limit` transactions that `relay` holds, of those that it was not asked about since `asked_since`.
pub(crate) async fn to_ask(
    database: &Database,
    relay: ServerName,
    asked_since: Timestamp,
    limit: usize,
) -> Result<Vec<ToAsk>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT destination, seq, txn_id, content_sha256, since, receipt
                       FROM ledger_holders JOIN kept_copies USING (destination, seq)
                       JOIN ledger USING (destination, seq)
                       WHERE relay = ?1 AND (asked_at IS NULL OR asked_at < ?2)
                       ORDER BY destination, seq LIMIT ?3";
            let row = params![relay.as_str(), millis(asked_since), number(limit as u64)];
            connection.prepare_cached(sql)?.query_map(row, asked)?.collect()
        })
        .await
}

fn asked(row: &Row<'_>) -> rusqlite::Result<ToAsk> {
    let receipt: Option<Vec<u8>> = row.get(5)?;
    let receipt = receipt.and_then(|json| serde_json::from_slice::<Receipt>(&json).ok());
    Ok(ToAsk {
        destination: server_name(row, 0)?,
        seq: unsigned(row, 1)?,
        txn_id: row.get(2)?,
        content_sha256: row.get(3)?,
        since: time(row, 4)?,
        expires_at: receipt.map(|receipt| receipt.expires_at),
    })
}

/// Enters what `relay` said of these, in one commit: what it lost it holds no longer, and a copy that nobody holds is
/// wanted. The worst that follows for the relay, with whose mail it was.
pub(crate) async fn answered(
    database: &Database,
    relay: ServerName,
    answers: Vec<(ToAsk, HolderStep)>,
    now: Timestamp,
) -> Result<Option<(Judgement, ServerName)>, StoreError> {
    database
        .write(move |connection| {
            let mut worst = None;
            for (asked, step) in &answers {
                match step {
                    HolderStep::Holds => said(connection, &relay, asked, Some("held"), now)?,
                    HolderStep::Collected => said(connection, &relay, asked, Some("gone"), now)?,
                    HolderStep::AskAgain => said(connection, &relay, asked, None, now)?,
                    HolderStep::Lost(blame) => {
                        lost(connection, &relay, asked, now)?;
                        if *blame == Blame::Relays {
                            let judgement = blamed(connection, &relay, asked, now)?;
                            if judgement != Judgement::SameIncident {
                                worst = Some((judgement, asked.destination.clone()));
                            }
                        }
                    }
                }
            }
            Ok(worst)
        })
        .await
}

fn said(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    word: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger_holders SET asked_at = ?4, said = ?5
               WHERE destination = ?1 AND seq = ?2 AND relay = ?3";
    let (destination, seq) = (asked.destination.as_str(), number(asked.seq));
    let row = params![destination, seq, relay.as_str(), millis(now), word];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

fn lost(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let (destination, seq) = (asked.destination.as_str(), number(asked.seq));
    let sql = "DELETE FROM ledger_holders WHERE destination = ?1 AND seq = ?2 AND relay = ?3";
    connection.prepare_cached(sql)?.execute(params![destination, seq, relay.as_str()])?;
    let sql = "UPDATE kept_copies SET wanted_at = ?3 WHERE destination = ?1 AND seq = ?2 AND wanted_at IS NULL
               AND NOT EXISTS (SELECT 1 FROM ledger_holders WHERE destination = ?1 AND seq = ?2)";
    connection.prepare_cached(sql)?.execute(params![destination, seq, millis(now)]).map(drop)
}

fn blamed(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    now: Timestamp,
) -> rusqlite::Result<Judgement> {
    let loss = Loss {
        destination: asked.destination.clone(),
        relay: relay.clone(),
        txn_id: asked.txn_id.clone(),
        left_at: asked.since,
        evidence: "it knows nothing of mail that it took",
    };
    trust::lost(connection, &loss, now)
}

fn duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
