//! What relays are asked about, and what they said.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::Receipt;
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, Row, params};

use super::super::inbox::{server_name, time, unsigned};
use super::super::seen::millis;
use super::super::trust::{self, Loss};
use super::super::{number, timestamp};
use crate::outbox::rule::{Blame, HolderStep};
use crate::outbox::trust::Judgement;

/// Transactions that one step of doubting takes, so that other writes need not wait long.
const DOUBT_STEP: u32 = 200;

/// What is held against a relay that does not have what it took.
const LOST: &str = "it knows nothing of mail that it took";

/// What is held against one that says it has.
const WITHHELD: &str =
    "it says that it holds mail which its recipient, whose relay it is, did not get from it";

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
    /// When its recipient said that it never came.
    pub(crate) missed_at: Option<Timestamp>,
}

/// When relays are asked: first this long after they took it, and then at this interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    /// The first time.
    pub(crate) first: Duration,
    /// Between two times.
    pub(crate) then: Duration,
}

/// Mail for one destination that a relay holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holding {
    /// The relay.
    pub(crate) relay: ServerName,
    /// Whom the mail is for.
    pub(crate) destination: ServerName,
    /// When the relay is to be asked about it.
    pub(crate) ask_at: Timestamp,
}

/// Who holds transactions of copies, for whom.
pub(crate) async fn holdings(
    database: &Database,
    intervals: Intervals,
) -> Result<Vec<Holding>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT relay, destination, min(coalesce(asked_at + ?2, since + ?1))
                       FROM kept_copies JOIN ledger_holders USING (destination, seq)
                       GROUP BY relay, destination ORDER BY relay, destination";
            let row = params![duration(intervals.first), duration(intervals.then)];
            let holding = |row: &Row<'_>| {
                let (relay, destination) = (server_name(row, 0)?, server_name(row, 1)?);
                Ok(Holding { relay, destination, ask_at: time(row, 2)? })
            };
            connection.prepare_cached(sql)?.query_map(row, holding)?.collect()
        })
        .await
}

/// Up to `limit` transactions for `destinations` that `relay` holds, of those that it was not asked about since
/// `asked_since`.
pub(crate) async fn to_ask(
    database: &Database,
    relay: ServerName,
    destinations: &[ServerName],
    asked_since: Timestamp,
    limit: usize,
) -> Result<Vec<ToAsk>, StoreError> {
    let destinations: Vec<&str> = destinations.iter().map(ServerName::as_str).collect();
    let destinations = serde_json::to_string(&destinations).unwrap_or_default();
    database
        .read(move |connection| {
            let sql = "SELECT destination, seq, txn_id, content_sha256, since, receipt, missed_at
                       FROM ledger_holders JOIN kept_copies USING (destination, seq)
                       JOIN ledger USING (destination, seq)
                       WHERE relay = ?1 AND destination IN (SELECT value FROM json_each(?4))
                       AND (asked_at IS NULL OR asked_at < ?2)
                       ORDER BY destination, seq LIMIT ?3";
            let limit = number(limit as u64);
            let row = params![relay.as_str(), millis(asked_since), limit, destinations];
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
        missed_at: row.get::<_, Option<i64>>(6)?.map(timestamp),
    })
}

/// Enters what `relay` said of these, in one commit: what it lost it holds no longer, and a copy that nobody holds is
/// wanted. What it once said is gone stays so, whatever it remembers. The worst that follows for the relay, with whose mail
/// it was.
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
                    HolderStep::Withholds => {
                        note(connection, &relay, asked, Some("held"), now)?;
                        worst = blamed(connection, &relay, asked, (WITHHELD, now))?.or(worst);
                    }
                    HolderStep::Collected => said(connection, &relay, asked, Some("gone"), now)?,
                    HolderStep::AskAgain => said(connection, &relay, asked, None, now)?,
                    HolderStep::RanOut => {
                        if lost(connection, &relay, asked, now)? == Entered::News {
                            not_at_relays(connection, asked, now)?;
                        }
                    }
                    HolderStep::Lost(blame) => {
                        let entered = lost(connection, &relay, asked, now)?;
                        if entered == Entered::News && *blame == Blame::Relays {
                            worst = blamed(connection, &relay, asked, (LOST, now))?.or(worst);
                        }
                    }
                }
            }
            Ok(worst)
        })
        .await
}

/// Enters its word, and that it is worth something.
fn said(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    word: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    note(connection, relay, asked, word, now)?;
    match word {
        Some(_) => trust::kept_its_word(connection, (&asked.destination, relay), asked.since, now),
        None => Ok(()),
    }
}

fn note(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    word: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE ledger_holders SET asked_at = ?4, said = ?5, doubted_at = iif(?5 IS NULL, doubted_at, NULL)
               WHERE destination = ?1 AND seq = ?2 AND relay = ?3";
    let (destination, seq) = (asked.destination.as_str(), number(asked.seq));
    let row = params![destination, seq, relay.as_str(), millis(now), word];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// Whether there was something to enter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    /// The relay held it until now.
    News,
    /// It was confirmed or left anew while the relay was asked, or its recipient has it.
    Nothing,
}

fn lost(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    now: Timestamp,
) -> rusqlite::Result<Entered> {
    let (destination, seq) = (asked.destination.as_str(), number(asked.seq));
    let (name, since) = (relay.as_str(), millis(asked.since));
    let is_gone = "UPDATE ledger_holders SET asked_at = ?4
                   WHERE destination = ?1 AND seq = ?2 AND relay = ?3 AND said = 'gone'";
    let row = params![destination, seq, name, millis(now)];
    if connection.prepare_cached(is_gone)?.execute(row)? > 0 {
        return Ok(Entered::Nothing);
    }
    let sql = "DELETE FROM ledger_holders WHERE destination = ?1 AND seq = ?2 AND relay = ?3 AND since = ?4
               AND EXISTS (SELECT 1 FROM kept_copies WHERE destination = ?1 AND seq = ?2)";
    if connection.prepare_cached(sql)?.execute(params![destination, seq, name, since])? == 0 {
        return Ok(Entered::Nothing);
    }
    let sql = "UPDATE kept_copies SET wanted_at = coalesce(wanted_at, ?3), leave_after = NULL
               WHERE destination = ?1 AND seq = ?2 AND NOT EXISTS (SELECT 1 FROM ledger_holders
               WHERE destination = ?1 AND seq = ?2 AND (doubted_at IS NULL OR said = 'gone'))";
    connection.prepare_cached(sql)?.execute(params![destination, seq, millis(now)])?;
    Ok(Entered::News)
}

/// What lay at a relay for its time lies at none again: it is sent to its destination alone.
fn not_at_relays(connection: &Connection, asked: &ToAsk, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE kept_copies SET leave_after = ?3 WHERE destination = ?1 AND seq = ?2";
    let (destination, seq) = (asked.destination.as_str(), number(asked.seq));
    let until = millis(now.after(TIME_TO_LIVE));
    connection.prepare_cached(sql)?.execute(params![destination, seq, until]).map(drop)
}

/// What `relay` holds for `destination` does not count as held for now, one step of it: nobody can say whether it is there.
/// Copies that nobody else holds are wanted; how many were looked at.
pub(crate) async fn doubt(
    database: &Database,
    (relay, destination): (ServerName, ServerName),
    now: Timestamp,
) -> Result<usize, StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE ledger_holders SET doubted_at = ?3 WHERE relay = ?1 AND destination = ?2
                       AND seq IN (SELECT seq FROM ledger_holders JOIN kept_copies USING (destination, seq)
                                   WHERE relay = ?1 AND destination = ?2 AND doubted_at IS NULL LIMIT ?4)
                       RETURNING seq";
            let (relay, name, at) = (relay.as_str(), destination.as_str(), millis(now));
            let mut statement = connection.prepare_cached(sql)?;
            let doubted = statement.query_map(params![relay, name, at, DOUBT_STEP], |row| row.get(0))?;
            let doubted = doubted.collect::<rusqlite::Result<Vec<i64>>>()?;
            let sql = "UPDATE kept_copies SET wanted_at = ?3, leave_after = NULL
                       WHERE destination = ?1 AND seq = ?2 AND wanted_at IS NULL AND NOT EXISTS
                       (SELECT 1 FROM ledger_holders WHERE destination = ?1 AND seq = ?2
                        AND (doubted_at IS NULL OR said = 'gone'))";
            let mut want = connection.prepare_cached(sql)?;
            for seq in &doubted {
                want.execute(params![name, seq, at])?;
            }
            Ok(doubted.len())
        })
        .await
}

/// There is nobody to ask about what `relay` holds for `destination`: as if it had not answered.
pub(crate) async fn not_asked(
    database: &Database,
    (relay, destination): (ServerName, ServerName),
    now: Timestamp,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "UPDATE ledger_holders SET asked_at = ?3 WHERE relay = ?1 AND destination = ?2
                       AND EXISTS (SELECT 1 FROM kept_copies WHERE destination = ?2 AND seq = ledger_holders.seq)";
            let row = params![relay.as_str(), destination.as_str(), millis(now)];
            connection.prepare_cached(sql)?.execute(row).map(drop)
        })
        .await
}

/// Enters that a relay is to blame; what follows, if it is news.
fn blamed(
    connection: &Connection,
    relay: &ServerName,
    asked: &ToAsk,
    (evidence, now): (&'static str, Timestamp),
) -> rusqlite::Result<Option<(Judgement, ServerName)>> {
    let loss = Loss {
        destination: asked.destination.clone(),
        relay: relay.clone(),
        txn_id: asked.txn_id.clone(),
        left_at: asked.since,
        evidence,
    };
    let judgement = trust::lost(connection, &loss, now)?;
    let is_news = judgement != Judgement::SameIncident;
    Ok(is_news.then(|| (judgement, asked.destination.clone())))
}

fn duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
