//! The own relay record that was made last.

use bytes::Bytes;
use restante_sqlite::rusqlite::{self, Connection, OptionalExtension};

/// Its JSON, as it was signed.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Option<Bytes>> {
    let sql = "SELECT record FROM own_relay_record";
    let record = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0).map(Bytes::from);
    connection.prepare_cached(sql)?.query_row([], record).optional()
}

/// Keeps another in its place.
pub(crate) fn keep(connection: &Connection, record: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO own_relay_record (only, record) VALUES (1, ?1)
               ON CONFLICT (only) DO UPDATE SET record = excluded.record";
    connection.prepare_cached(sql)?.execute([record]).map(drop)
}
