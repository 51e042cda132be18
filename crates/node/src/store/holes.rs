//! Numbers of streams that every relay was asked for and that none gave.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::inbox::{server_name, time, unsigned};
use super::number;
use super::receipts_due;
use super::seen::millis;

/// Holes that are remembered; the oldest make room.
const HOLES_MAX: u32 = 1_000;

/// Holes of one origin that are remembered: whoever numbers its mail wildly makes others' room only with many helpers.
const ORIGIN_HOLES_MAX: u32 = 50;

/// Consecutive numbers that never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Whose.
    pub(crate) origin: ServerName,
    /// Of which stream.
    pub(crate) stream: String,
    /// The first number.
    pub(crate) first: u64,
    /// The last number.
    pub(crate) last: u64,
    /// The relays that were asked.
    pub(crate) relays: String,
    /// When it was noticed.
    pub(crate) noticed_at: Timestamp,
}

/// Notes a hole, which its origin is to hear of; one that begins at the same number stays as it was noted first.
pub(crate) async fn report(database: &Database, hole: Hole) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            insert(connection, &hole)?;
            receipts_due::missing(connection, &hole)?;
            let of_origin = "DELETE FROM stream_holes WHERE (origin, stream, first_seq) IN
                             (SELECT origin, stream, first_seq FROM stream_holes WHERE origin = ?1
                              ORDER BY reported_at DESC LIMIT -1 OFFSET ?2)";
            let row = params![hole.origin.as_str(), ORIGIN_HOLES_MAX];
            connection.prepare_cached(of_origin)?.execute(row)?;
            let sql = "DELETE FROM stream_holes WHERE (origin, stream, first_seq) IN
                       (SELECT origin, stream, first_seq FROM stream_holes
                        ORDER BY reported_at DESC LIMIT -1 OFFSET ?1)";
            connection.prepare_cached(sql)?.execute([HOLES_MAX]).map(drop)
        })
        .await
}

fn insert(connection: &Connection, hole: &Hole) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO stream_holes (origin, stream, first_seq, last_seq, relays, reported_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let row = params![
        hole.origin.as_str(),
        hole.stream,
        number(hole.first),
        number(hole.last),
        hole.relays,
        millis(hole.noticed_at),
    ];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// The number came after all.
pub(super) fn fill(
    connection: &Connection,
    origin: &ServerName,
    stream: &str,
    seq: u64,
) -> rusqlite::Result<()> {
    let sql = "DELETE FROM stream_holes WHERE origin = ?1 AND stream = ?2 AND first_seq <= ?3 AND last_seq >= ?3
               RETURNING origin, stream, first_seq, last_seq, relays, reported_at";
    let row = params![origin.as_str(), stream, number(seq)];
    let Some(filled) = connection.prepare_cached(sql)?.query_row(row, hole).optional()? else {
        return Ok(());
    };
    if filled.first < seq {
        insert(connection, &Hole { last: seq - 1, ..filled.clone() })?;
    }
    if seq < filled.last {
        insert(connection, &Hole { first: seq + 1, ..filled })?;
    }
    Ok(())
}

/// The newest `limit` holes.
pub(crate) async fn list(database: &Database, limit: u32) -> Result<Vec<Hole>, StoreError> {
    database
        .read(move |connection| {
            let sql =
                "SELECT origin, stream, first_seq, last_seq, relays, reported_at FROM stream_holes
                       ORDER BY reported_at DESC, origin, stream, first_seq LIMIT ?1";
            connection.prepare_cached(sql)?.query_map([limit], hole)?.collect()
        })
        .await
}

fn hole(row: &Row<'_>) -> rusqlite::Result<Hole> {
    Ok(Hole {
        origin: server_name(row, 0)?,
        stream: row.get(1)?,
        first: unsigned(row, 2)?,
        last: unsigned(row, 3)?,
        relays: row.get(4)?,
        noticed_at: time(row, 5)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_site::{BEGINNING, TestSite, name};

    fn hole(origin: &str, first: u64, last: u64) -> Hole {
        Hole {
            origin: name(origin),
            stream: "s".to_owned(),
            first,
            last,
            relays: "relay.test".to_owned(),
            noticed_at: BEGINNING,
        }
    }

    #[tokio::test]
    async fn one_origins_holes_do_not_push_out_anothers() {
        let site = TestSite::new().await;
        report(&site.database, hole("b.test", 1, 2)).await.unwrap();
        for number in 0..u64::from(HOLES_MAX) {
            let noticed_at = BEGINNING.after(Duration::from_secs(number + 1));
            let hole = Hole { noticed_at, ..hole("c.test", number * 10, number * 10 + 1) };
            report(&site.database, hole).await.unwrap();
        }
        let holes = list(&site.database, u32::MAX).await.unwrap();
        assert_eq!(holes.len(), 1 + ORIGIN_HOLES_MAX as usize);
        assert_eq!(holes.last().unwrap().origin, name("b.test"));
        assert_eq!(holes[0].first, u64::from(HOLES_MAX - 1) * 10);
    }

    #[tokio::test]
    async fn a_number_that_comes_late_leaves_what_is_still_missing_on_both_sides() {
        let site = TestSite::new().await;
        let hole = hole("b.test", 17, 19);
        report(&site.database, hole.clone()).await.unwrap();
        let (database, origin) = (site.database.clone(), hole.origin.clone());
        let came = async |seq: u64| {
            let origin = origin.clone();
            database.write(move |connection| fill(connection, &origin, "s", seq)).await.unwrap();
            let holes = list(&database, 9).await.unwrap();
            holes.iter().map(|hole| (hole.first, hole.last)).collect::<Vec<_>>()
        };
        assert_eq!(came(18).await, [(17, 17), (19, 19)]);
        assert_eq!(came(42).await, [(17, 17), (19, 19)]);
        assert_eq!(came(17).await, [(19, 19)]);
        assert_eq!(came(19).await, []);
    }
}
