//! The own relay record that was made last.

use bytes::Bytes;
use restante_sqlite::{Database, StoreError};
use rusqlite::OptionalExtension;

/// Its JSON, as it was signed.
pub(crate) async fn load(database: &Database) -> Result<Option<Bytes>, StoreError> {
    database
        .read(|connection| {
            let sql = "SELECT record FROM own_relay_record";
            let record = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0).map(Bytes::from);
            connection.query_row(sql, [], record).optional()
        })
        .await
}

/// Keeps another in its place; durable on return.
pub(crate) async fn keep(database: &Database, record: Bytes) -> Result<(), StoreError> {
    let sql = "INSERT INTO own_relay_record (only, record) VALUES (1, ?1)
               ON CONFLICT (only) DO UPDATE SET record = excluded.record";
    database.write(move |connection| connection.execute(sql, [record.as_ref()]).map(drop)).await
}
