//! The table of what relays say they lost of our mail.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::inbox::{server_name, time, unsigned};
use super::number;
use super::seen::millis;
use crate::losses::{Amount, Line, LossKind, Lost, joined};

/// Lines that are kept of one relay: three times what it may tell at once, for what it told before. Beyond that the oldest
/// make room, so that a relay that makes names up takes no more.
pub(crate) const LINES_OF_A_RELAY_MAX: usize = 1000;

/// How long a line is kept after its last loss: a quarter of a year, so that nobody who looks now and then misses it.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);

/// The origin of lines that sum up those for whom there was none.
const OTHERS: &str = "";

/// Keeps lines of `relay` in one commit; gives back those that are news. What is old goes.
pub(crate) async fn keep(
    database: &Database,
    relay: ServerName,
    lines: Vec<Line>,
    now: Timestamp,
) -> Result<Vec<Line>, StoreError> {
    database
        .write(move |connection| {
            let old = "DELETE FROM losses WHERE until < ?1";
            connection.execute(old, [millis(now.before(REMEMBERED))])?;
            let mut news = Vec::new();
            for line in lines {
                let origin = line.origin.as_ref().map_or(OTHERS, ServerName::as_str);
                let key = Key { relay: relay.as_str(), kind: line.kind.as_str(), origin };
                if keep_one(connection, &key, line.amount)? {
                    news.push(line);
                }
            }
            let beyond = "DELETE FROM losses WHERE relay = ?1 AND (kind, origin) IN (SELECT kind, origin FROM losses
                          WHERE relay = ?1 ORDER BY until DESC, kind, origin LIMIT -1 OFFSET ?2)";
            let most = number(LINES_OF_A_RELAY_MAX as u64);
            connection.prepare_cached(beyond)?.execute(params![relay.as_str(), most])?;
            Ok(news)
        })
        .await
}

/// Which row.
struct Key<'a> {
    relay: &'a str,
    kind: &'static str,
    origin: &'a str,
}

/// What a row says.
struct Kept {
    earlier: (u64, u64),
    first_at: Timestamp,
    line: Amount,
}

fn kept(connection: &Connection, key: &Key<'_>) -> rusqlite::Result<Option<Kept>> {
    let sql =
        "SELECT earlier_count, earlier_bytes, first_at, count, bytes, since, until FROM losses
               WHERE relay = ?1 AND kind = ?2 AND origin = ?3";
    let read = |row: &Row<'_>| {
        Ok(Kept {
            earlier: (unsigned(row, 0)?, unsigned(row, 1)?),
            first_at: time(row, 2)?,
            line: Amount {
                count: unsigned(row, 3)?,
                bytes: unsigned(row, 4)?,
                since: time(row, 5)?,
                until: time(row, 6)?,
            },
        })
    };
    connection
        .prepare_cached(sql)?
        .query_row(params![key.relay, key.kind, key.origin], read)
        .optional()
}

/// Whether the line says more than what is kept.
fn keep_one(connection: &Connection, key: &Key<'_>, told: Amount) -> rusqlite::Result<bool> {
    let before = kept(connection, key)?;
    if before.as_ref().is_some_and(|before| before.line == told) {
        return Ok(false);
    }
    let first_at = before.as_ref().map_or(told.since, |before| before.first_at.min(told.since));
    let (earlier, line) = match before {
        Some(before) => joined(before.earlier, before.line, told),
        None => ((0, 0), told),
    };
    let sql = "INSERT OR REPLACE INTO losses (relay, kind, origin, earlier_count, earlier_bytes, first_at, since, count,
               bytes, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        key.relay,
        key.kind,
        key.origin,
        number(earlier.0),
        number(earlier.1),
        millis(first_at),
        millis(line.since),
        number(line.count),
        number(line.bytes),
        millis(line.until),
    ])?;
    Ok(true)
}

/// Everything, the newest first. Rows that do not read are left out.
pub(crate) async fn all(database: &Database) -> Result<Vec<Lost>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT relay, kind, origin, earlier_count + count, earlier_bytes + bytes, first_at, until
                       FROM losses ORDER BY until DESC, relay, kind, origin";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let amount = Amount {
                    count: unsigned(row, 3)?,
                    bytes: unsigned(row, 4)?,
                    since: time(row, 5)?,
                    until: time(row, 6)?,
                };
                let (kind, origin): (String, String) = (row.get(1)?, row.get(2)?);
                Ok((server_name(row, 0)?, LossKind::of(&kind), origin, amount))
            })?;
            let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
            let read = |(relay, kind, origin, amount): (ServerName, Option<LossKind>, String, Amount)| {
                let origin = match origin.as_str() {
                    OTHERS => None,
                    origin => Some(origin.parse().ok()?),
                };
                Some(Lost { relay, kind: kind?, origin, amount })
            };
            Ok(rows.into_iter().filter_map(read).collect())
        })
        .await
}
