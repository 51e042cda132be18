//! The table of relays that the operator added.

use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_sqlite::rusqlite::{self, Connection, params};

/// All of them, with the server whose mail each holds. Rows that do not read are left out.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Vec<(ServerName, Peer)>> {
    let rows = connection
        .prepare_cached("SELECT server_name, relay, url FROM relays ORDER BY server_name, relay")?
        .query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, Option<String>>(2)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let read = |(server, relay, url): (String, String, Option<String>)| {
        let url = url.map(|url| url.parse()).transpose().ok()?;
        Some((server.parse().ok()?, Peer::new(relay.parse().ok()?, url)))
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Adds a relay, or changes its URL.
pub(crate) fn add(
    connection: &Connection,
    server: &ServerName,
    relay: &Peer,
) -> rusqlite::Result<()> {
    let url = relay.url.as_ref().map(ToString::to_string);
    connection
        .prepare_cached(
            "INSERT INTO relays (server_name, relay, url) VALUES (?1, ?2, ?3)
             ON CONFLICT (server_name, relay) DO UPDATE SET url = excluded.url",
        )?
        .execute(params![server.as_str(), relay.name.as_str(), url])?;
    Ok(())
}

/// Removes a relay; `false` if there is none.
pub(crate) fn remove(
    connection: &Connection,
    server: &ServerName,
    relay: &ServerName,
) -> rusqlite::Result<bool> {
    let removed = connection
        .prepare_cached("DELETE FROM relays WHERE server_name = ?1 AND relay = ?2")?
        .execute([server.as_str(), relay.as_str()])?;
    Ok(removed > 0)
}
