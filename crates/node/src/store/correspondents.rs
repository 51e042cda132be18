//! The tables of servers that were met, and of when they were last told that we are back.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::rusqlite::{self, Connection, OptionalExtension, params};

use super::{number, timestamp};
use crate::relay_records::hearsay::Meeting;

/// Milliseconds in which a server is noted once: a day's precision would do, and each note is a durable write.
const NOTED_AGAIN_MS: i64 = 3600 * 1000;

/// Servers that are remembered as met: more than a homeserver of a few thousand rooms federates with.
const ANSWERED_MAX: u32 = 3072;

/// Of those that only called, who may be anybody with a key.
const CALLED_MAX: u32 = 1024;

/// Notes that `server` was met. Those of its kind that were met longest ago make room.
pub(crate) fn note(
    connection: &Connection,
    server: &ServerName,
    (meeting, met_at): (Meeting, Timestamp),
) -> rusqlite::Result<()> {
    let (answered, max) = match meeting {
        Meeting::Answered => (1, ANSWERED_MAX),
        Meeting::Called => (0, CALLED_MAX),
    };
    let noted = connection
        .prepare_cached(
            "INSERT INTO correspondents (server_name, met_at, has_answered) VALUES (?1, ?2, ?3)
             ON CONFLICT (server_name) DO UPDATE SET
                 met_at = excluded.met_at, has_answered = max(has_answered, excluded.has_answered)
                 WHERE excluded.met_at NOT BETWEEN met_at AND met_at + ?4
                     OR excluded.has_answered > has_answered",
        )?
        .execute(params![server.as_str(), number(met_at.as_millis()), answered, NOTED_AGAIN_MS])?;
    if noted == 0 {
        return Ok(());
    }
    let count = connection
        .prepare_cached("SELECT count(*) FROM correspondents WHERE has_answered = ?1")?
        .query_row([answered], |row| row.get::<_, u32>(0))?;
    if count > max {
        connection
            .prepare_cached(
                "DELETE FROM correspondents WHERE server_name IN (SELECT server_name FROM correspondents
                     WHERE has_answered = ?1 ORDER BY met_at LIMIT ?2)",
            )?
            .execute([answered, count - max])?;
    }
    Ok(())
}

/// Those that were met since `since`, at most `limit`: who answered before who only called, the last first. Rows that do not
/// read are left out.
pub(crate) fn met_since(
    connection: &Connection,
    since: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(ServerName, Timestamp)>> {
    let rows = connection
        .prepare_cached(
            "SELECT server_name, met_at FROM correspondents WHERE met_at >= ?1
             ORDER BY has_answered DESC, met_at DESC, server_name LIMIT ?2",
        )?
        .query_map(params![number(since.as_millis()), limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let read = |(name, at): (String, i64)| Some((name.parse().ok()?, timestamp(at)));
    Ok(rows.into_iter().filter_map(read).collect())
}

/// When they were last told that we are back.
pub(crate) fn last_woken_at(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let at = connection
        .prepare_cached("SELECT last_at FROM waking")?
        .query_row([], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(at.map(timestamp))
}

/// They are told at `at`.
pub(crate) fn note_waking(connection: &Connection, at: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO waking (only, last_at) VALUES (1, ?1)";
    connection.prepare_cached(sql)?.execute([number(at.as_millis())])?;
    Ok(())
}
