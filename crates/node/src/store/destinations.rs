//! The table of destinations that did not answer.

use std::collections::HashMap;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::rusqlite::{self, Connection, params};
use restante_sqlite::{Database, StoreError};

use super::{number, timestamp};
use crate::destinations::Standing;

/// Every destination with failures.
pub(crate) async fn load(database: &Database) -> Result<HashMap<ServerName, Standing>, StoreError> {
    let rows = database
        .read(|connection| {
            connection
                .prepare_cached(
                    "SELECT server_name, failures, assumed_offline_since, next_probe_at
                     FROM destinations",
                )?
                .query_map([], |row| {
                    let standing = Standing {
                        failures: row.get(1)?,
                        assumed_offline_since: row.get::<_, Option<i64>>(2)?.map(timestamp),
                        next_probe_at: row.get::<_, Option<i64>>(3)?.map(timestamp),
                    };
                    Ok((row.get::<_, String>(0)?, standing))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(name, standing)| Some((name.parse().ok()?, standing)))
        .collect())
}

/// Keeps what is known of `server`; one without failures needs no row.
pub(crate) fn save(
    connection: &Connection,
    server: &ServerName,
    standing: &Standing,
) -> rusqlite::Result<()> {
    if standing.failures == 0 {
        connection
            .prepare_cached("DELETE FROM destinations WHERE server_name = ?1")?
            .execute([server.as_str()])?;
        return Ok(());
    }
    let millis = |at: Option<Timestamp>| at.map(|at| number(at.as_millis()));
    connection
        .prepare_cached(
            "INSERT INTO destinations (server_name, failures, assumed_offline_since, next_probe_at)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (server_name) DO UPDATE SET failures = excluded.failures,
                 assumed_offline_since = excluded.assumed_offline_since,
                 next_probe_at = excluded.next_probe_at",
        )?
        .execute(params![
            server.as_str(),
            standing.failures,
            millis(standing.assumed_offline_since),
            millis(standing.next_probe_at)
        ])?;
    Ok(())
}
