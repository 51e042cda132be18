//! The table of servers that were met.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::rusqlite::{self, Connection, params};

use super::{number, timestamp};

/// Milliseconds in which a server is noted once: a day's precision would do, and each note is a durable write.
const NOTED_AGAIN_MS: i64 = 3600 * 1000;

/// Notes that `server` was met, and forgets those beyond the `kept_max` that were met last.
pub(crate) fn note(
    connection: &Connection,
    server: &ServerName,
    met_at: Timestamp,
    kept_max: u32,
) -> rusqlite::Result<()> {
    let noted = connection
        .prepare_cached(
            "INSERT INTO correspondents (server_name, met_at) VALUES (?1, ?2)
             ON CONFLICT (server_name) DO UPDATE SET met_at = excluded.met_at
                 WHERE excluded.met_at NOT BETWEEN met_at AND met_at + ?3",
        )?
        .execute(params![server.as_str(), number(met_at.as_millis()), NOTED_AGAIN_MS])?;
    if noted == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "DELETE FROM correspondents WHERE server_name IN
                 (SELECT server_name FROM correspondents ORDER BY met_at DESC, server_name LIMIT -1 OFFSET ?1)",
        )?
        .execute([kept_max])?;
    Ok(())
}

/// Those that were met since `since`, the last first, at most `limit`. Rows that do not read are left out.
pub(crate) fn met_since(
    connection: &Connection,
    since: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(ServerName, Timestamp)>> {
    let rows = connection
        .prepare_cached(
            "SELECT server_name, met_at FROM correspondents WHERE met_at >= ?1
             ORDER BY met_at DESC, server_name LIMIT ?2",
        )?
        .query_map(params![number(since.as_millis()), limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let read = |(name, at): (String, i64)| Some((name.parse().ok()?, timestamp(at)));
    Ok(rows.into_iter().filter_map(read).collect())
}
