//! What never changes about rooms: their versions.

use std::collections::{BTreeMap, BTreeSet};

use restante_sqlite::{Database, StoreError};
use rusqlite::OptionalExtension;

/// The known versions among `rooms`.
pub(crate) async fn versions(
    database: &Database,
    rooms: BTreeSet<String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    database
        .read(move |connection| {
            let mut statement = connection
                .prepare_cached("SELECT version FROM room_versions WHERE room_id = ?1")?;
            let mut versions = BTreeMap::new();
            for room_id in rooms {
                let version = statement.query_row([&room_id], |row| row.get(0)).optional()?;
                versions.extend(version.map(|version| (room_id, version)));
            }
            Ok(versions)
        })
        .await
}

/// Remembers a room's version.
pub(crate) async fn remember(
    database: &Database,
    room_id: String,
    version: String,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "INSERT OR IGNORE INTO room_versions (room_id, version) VALUES (?1, ?2)";
            connection.execute(sql, [room_id, version]).map(drop)
        })
        .await
}
