//! The ledger's tables: what was numbered, sent and left where.

use std::collections::BTreeSet;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::rusqlite::{self, Connection, OptionalExtension, params};
use restante_sqlite::{Database, StoreError, all_or_each};

use super::outbox::{self, Kept, Room};
use super::{number, timestamp};
use crate::delivery::ledger::{CopyState, FORGOTTEN_AT_ONCE, Line, Place, place};

/// What identifies a transaction: the same id with other content is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// The homeserver's id for it.
    pub(crate) txn_id: String,
    /// SHA-256 of its canonical content.
    pub(crate) content_sha256: [u8; 32],
}

/// The ledger. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    database: Database,
    stream: String,
}

impl Ledger {
    /// Opens the ledger; a database that has no stream yet takes `drawn_stream`.
    pub(crate) async fn open(database: Database, drawn_stream: String) -> Result<Self, StoreError> {
        let stream = database
            .write(move |connection| {
                connection.execute(
                    "INSERT OR IGNORE INTO installation (only, stream) VALUES (1, ?1)",
                    [drawn_stream],
                )?;
                connection.query_row("SELECT stream FROM installation", [], |row| row.get(0))
            })
            .await?;
        Ok(Self { database, stream })
    }

    /// The name of this installation's streams.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// Enters a transaction, or finds it; durable on return. Forgets a few lines that are too old.
    pub(crate) async fn enter(
        &self,
        transaction: Transaction,
        now: Timestamp,
    ) -> Result<Line, StoreError> {
        self.database
            .write(move |connection| match line(connection, &transaction)? {
                Some(line) => Ok(line),
                None => add(connection, &transaction, now),
            })
            .await
    }

    /// The destination itself took the transaction, but for these events of it; its copy goes.
    pub(crate) async fn delivered(
        &self,
        destination: ServerName,
        seq: u64,
        errors: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.database
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "UPDATE ledger SET delivered_at = coalesce(delivered_at, ?3), errors = coalesce(errors, ?4)
                         WHERE destination = ?1 AND seq = ?2",
                    )?
                    .execute(params![
                        destination.as_str(),
                        number(seq),
                        number(now.as_millis()),
                        errors
                    ])?;
                outbox::arrived_directly(connection, &destination, seq)
            })
            .await
    }

    /// `relay` holds the transaction; its copy is kept in the same commit, unless there is one.
    pub(crate) async fn held_by(
        &self,
        (destination, seq): (ServerName, u64),
        relay: ServerName,
        kept: Option<Kept>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let bytes_max = kept.as_ref().map(|kept| kept.bytes_max);
        let room = self
            .database
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO ledger_holders (destination, seq, relay, since) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET doubted_at = NULL",
                    )?
                    .execute(params![
                        destination.as_str(),
                        number(seq),
                        relay.as_str(),
                        number(now.as_millis())
                    ])?;
                match &kept {
                    Some(kept) => outbox::keep(connection, (&destination, seq), kept, now),
                    None => Ok(Room::Left),
                }
            })
            .await?;
        // In a commit of its own: a damaged copy that can't be removed must not keep new ones out.
        if let (Some(bytes_max), Room::None) = (bytes_max, room)
            && let Err(error) = outbox::make_room(&self.database, bytes_max).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "copies beyond outbox.bytes_max can't be removed now");
        }
        Ok(())
    }

    /// Keeps the verified receipt of a relay that holds the transaction.
    pub(crate) async fn receipted(
        &self,
        (destination, seq): (ServerName, u64),
        relay: ServerName,
        receipt: Bytes,
    ) -> Result<(), StoreError> {
        self.database
            .write(move |connection| {
                let sql = "UPDATE ledger_holders SET receipt = ?4
                           WHERE destination = ?1 AND seq = ?2 AND relay = ?3";
                let (destination, relay) = (destination.as_str(), relay.as_str());
                let row = params![destination, number(seq), relay, receipt.as_ref()];
                connection.prepare_cached(sql)?.execute(row).map(drop)
            })
            .await
    }

    /// What the ledger says of a transaction.
    #[cfg(test)]
    pub(crate) async fn line(&self, transaction: Transaction) -> Option<Line> {
        self.database.read(move |connection| line(connection, &transaction)).await.unwrap()
    }
}

pub(super) fn line(
    connection: &Connection,
    transaction: &Transaction,
) -> rusqlite::Result<Option<Line>> {
    let key =
        params![transaction.destination.as_str(), transaction.txn_id, transaction.content_sha256];
    let found = connection
        .prepare_cached(
            "SELECT seq, first_at, coalesce(delivered_at, confirmed_at), EXISTS
             (SELECT 1 FROM kept_copies WHERE destination = ledger.destination AND seq = ledger.seq)
             FROM ledger WHERE destination = ?1 AND txn_id = ?2 AND content_sha256 = ?3",
        )?
        .query_row(key, |row| {
            let seq: i64 = row.get(0)?;
            let place = Place { seq: seq.unsigned_abs(), first_at: timestamp(row.get(1)?) };
            let copy = if row.get::<_, bool>(3)? { CopyState::Kept } else { CopyState::None };
            Ok((place, row.get::<_, Option<i64>>(2)?.map(timestamp), copy))
        })
        .optional()?;
    let Some((place, delivered_at, copy)) = found else { return Ok(None) };
    let holders = holders(connection, &transaction.destination, place.seq)?;
    Ok(Some(Line { place, delivered_at, holders, copy }))
}

fn holders(
    connection: &Connection,
    destination: &ServerName,
    seq: u64,
) -> rusqlite::Result<BTreeSet<ServerName>> {
    let mut names = connection
        .prepare_cached("SELECT relay FROM ledger_holders WHERE destination = ?1 AND seq = ?2")?;
    let names = names
        .query_map(params![destination.as_str(), number(seq)], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
}

fn add(
    connection: &Connection,
    transaction: &Transaction,
    now: Timestamp,
) -> rusqlite::Result<Line> {
    let destination = transaction.destination.as_str();
    let newest: Option<i64> = connection
        .prepare_cached("SELECT newest_seq FROM sent_streams WHERE destination = ?1")?
        .query_row([destination], |row| row.get(0))
        .optional()?;
    let place = place(None, newest.unwrap_or(0).unsigned_abs(), now);
    connection
        .prepare_cached(
            "INSERT INTO sent_streams (destination, newest_seq) VALUES (?1, ?2)
             ON CONFLICT (destination) DO UPDATE SET newest_seq = excluded.newest_seq",
        )?
        .execute(params![destination, number(place.seq)])?;
    connection
        .prepare_cached(
            "INSERT INTO ledger (destination, seq, txn_id, content_sha256, first_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            destination,
            number(place.seq),
            transaction.txn_id,
            transaction.content_sha256,
            number(now.as_millis())
        ])?;
    Ok(Line { place, delivered_at: None, holders: BTreeSet::new(), copy: CopyState::None })
}

/// A line that may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Old {
    first_at: i64,
    destination: String,
    seq: i64,
}

/// Forgets what began before `before`, with its copies; in steps, so that other writes need not wait long. What lies on damaged pages
/// stays, and keeps nothing else.
pub(crate) async fn forget(database: &Database, before: Timestamp) -> Result<(), StoreError> {
    let mut after = Old { first_at: i64::MIN, destination: String::new(), seq: 0 };
    loop {
        let begin = after.clone();
        let page = database.read(move |connection| old(connection, before, &begin)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.clone();
        let forget =
            |lines: Vec<Old>| database.write(move |connection| forget_lines(connection, &lines));
        let stays = |Old { destination, seq, .. }: &Old, error: &StoreError| {
            let error = error as &dyn std::error::Error;
            tracing::error!(
                destination,
                seq,
                error,
                "an old line of the ledger can't be removed; check the disk"
            );
        };
        all_or_each(&page, forget, stays).await?;
    }
}

/// The index alone answers this, so that a damaged line can't stop the walk.
fn old(connection: &Connection, before: Timestamp, after: &Old) -> rusqlite::Result<Vec<Old>> {
    let sql = "SELECT first_at, destination, seq FROM ledger
               WHERE first_at < ?1 AND (first_at, destination, seq) > (?2, ?3, ?4)
               ORDER BY first_at, destination, seq LIMIT ?5";
    let before = number(before.as_millis());
    let page = params![before, after.first_at, after.destination, after.seq, FORGOTTEN_AT_ONCE];
    let old = |row: &rusqlite::Row<'_>| {
        Ok(Old { first_at: row.get(0)?, destination: row.get(1)?, seq: row.get(2)? })
    };
    connection.prepare_cached(sql)?.query_map(page, old)?.collect()
}

fn forget_lines(connection: &Connection, lines: &[Old]) -> rusqlite::Result<()> {
    for Old { destination, seq, .. } in lines {
        for forget in [
            "DELETE FROM kept_copies WHERE destination = ?1 AND seq = ?2",
            "DELETE FROM ledger_holders WHERE destination = ?1 AND seq = ?2",
            "DELETE FROM ledger WHERE destination = ?1 AND seq = ?2",
        ] {
            connection.prepare_cached(forget)?.execute(params![destination, seq])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use restante_sqlite_faults::lose_page;
    use tempfile::TempDir;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

    fn transaction(destination: &str, txn_id: &str, content: u8) -> Transaction {
        Transaction {
            destination: destination.parse().unwrap(),
            txn_id: txn_id.to_owned(),
            content_sha256: [content; 32],
        }
    }

    async fn open(folder: &TempDir, drawn: &str) -> Ledger {
        Ledger::open(crate::store::open(folder.path()).unwrap(), drawn.to_owned()).await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_keeps_its_name_and_numbers_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder, "first").await;
        assert_eq!(ledger.enter(transaction("b.test", "1", 0), NOW).await.unwrap().place.seq, 1);
        drop(ledger);

        let ledger = open(&folder, "second").await;
        assert_eq!(ledger.stream(), "first");
        assert_eq!(ledger.enter(transaction("b.test", "1", 0), NOW).await.unwrap().place.seq, 1);
        assert_eq!(ledger.enter(transaction("b.test", "1", 1), NOW).await.unwrap().place.seq, 2);
        assert_eq!(ledger.enter(transaction("c.test", "1", 0), NOW).await.unwrap().place.seq, 1);
    }

    #[tokio::test]
    async fn what_was_left_where_and_delivered_is_kept_with_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder, "s").await;
        let mail = transaction("b.test", "1", 0);
        let seq = ledger.enter(mail.clone(), NOW).await.unwrap().place.seq;
        for relay in ["r1.test", "r2.test", "r1.test"] {
            let relay = relay.parse().unwrap();
            let place = (mail.destination.clone(), seq);
            ledger.held_by(place, relay, None, NOW).await.unwrap();
        }
        ledger.delivered(mail.destination.clone(), seq, None, NOW).await.unwrap();
        ledger.delivered(mail.destination.clone(), seq, None, NOW.after(DAY)).await.unwrap();

        let line = ledger.enter(mail, NOW.after(DAY)).await.unwrap();
        assert_eq!(line.place.first_at, NOW);
        assert_eq!(line.delivered_at, Some(NOW));
        assert_eq!(line.holders.len(), 2);
    }

    #[tokio::test]
    async fn old_lines_are_forgotten_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder, "s").await;
        for id in 0..40 {
            ledger.enter(transaction("b.test", &id.to_string(), 0), NOW).await.unwrap();
        }
        let later = NOW.after(38 * DAY);
        let newest = ledger.enter(transaction("b.test", "new", 0), later).await.unwrap();
        assert_eq!(newest.place.seq, 41);
        forget(&ledger.database, NOW).await.unwrap();
        assert_eq!(count(&ledger).await, 41);
        forget(&ledger.database, later).await.unwrap();
        assert_eq!(count(&ledger).await, 1);
        let next = ledger.enter(transaction("b.test", "next", 0), later).await.unwrap();
        assert_eq!(next.place.seq, 42);
    }

    #[tokio::test]
    async fn old_lines_on_a_lost_page_keep_no_other_and_no_new_one_out() {
        for table in ["ledger", "ledger_holders"] {
            let folder = tempfile::tempdir().unwrap();
            let ledger = open(&folder, "s").await;
            for id in 0..400 {
                let mail = transaction("b.test", &id.to_string(), 0);
                let seq = ledger.enter(mail, NOW).await.unwrap().place.seq;
                let place = ("b.test".parse().unwrap(), seq);
                ledger.held_by(place, "r.test".parse().unwrap(), None, NOW).await.unwrap();
            }
            drop(ledger);
            lose_page(&folder.path().join("node.sqlite"), table, "leaf").unwrap();

            let ledger = open(&folder, "s").await;

            let later = NOW.after(38 * DAY);
            for id in 0..2 {
                let mail = transaction("c.test", &id.to_string(), 0);
                assert_eq!(ledger.enter(mail, later).await.unwrap().place.seq, id + 1, "{table}");
            }
            forget(&ledger.database, later).await.unwrap();
            let left = "SELECT count(*) FROM ledger INDEXED BY ledger_by_age WHERE first_at >= 0";
            let left: u32 =
                ledger.database.read(|c| c.query_row(left, [], |row| row.get(0))).await.unwrap();
            assert!((3..300).contains(&left), "{table}: {left} of 402");
            let mail = transaction("c.test", "2", 0);
            assert_eq!(ledger.enter(mail, later).await.unwrap().place.seq, 3, "{table}");
        }
    }

    async fn count(ledger: &Ledger) -> u32 {
        let sql = "SELECT count(*) FROM ledger";
        ledger.database.read(|c| c.query_row(sql, [], |row| row.get(0))).await.unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn numbers_have_no_holes_and_repeats_keep_theirs(
            mail in prop::collection::vec((0..3u8, 0..6u8, 0..2u8), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let ledger = open(&folder, "s").await;
                let mut known = HashMap::new();
                let mut newest = HashMap::new();
                for (destination, id, content) in mail {
                    let key = (destination, id, content);
                    let next = newest.get(&destination).unwrap_or(&0) + 1;
                    let expected = *known.entry(key).or_insert(next);
                    newest.entry(destination).and_modify(|n| *n = expected.max(*n)).or_insert(expected);
                    let mail = transaction(&format!("d{destination}.test"), &id.to_string(), content);
                    let line = ledger.enter(mail, NOW).await.unwrap();
                    assert_eq!(line.place.seq, expected);
                }
            });
        }
    }
}
