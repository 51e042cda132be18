//! How each connection is opened and set, with the reasons.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{OpenError, lock};

/// How long to wait for a lock of another program, such as a backup that copies the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a page, fixed when the file is created. A commit writes whole pages, and a small one
/// changes one page of each index: pages of 8 KiB wrote 58 KiB for a lone envelope of 4 KiB, these
/// 29 KiB, and the file is as large either way.
const PAGE_BYTES: u32 = 4 * 1024;

/// KiB of page cache of the writer. The upper levels of the indices fit; the system's own cache
/// holds the rest.
const WRITER_CACHE_KIB: i64 = 2 * 1024;

/// KiB of page cache of each reader.
const READER_CACHE_KIB: i64 = 512;

/// Bytes that the log file keeps after a peak.
const LOG_BYTES_MAX: i64 = 32 * 1024 * 1024;

/// Prepared statements kept by each connection.
const STATEMENTS_MAX: usize = 64;

/// Opens the file for writing, and creates it when there is none, with mode 0600; the log and
/// its index take their mode from it. Changes nothing in a file that exists.
pub(crate) fn open_writing(path: &Path) -> Result<Connection, OpenError> {
    let unwritable =
        |source: std::io::Error| OpenError::Unwritable { path: path.into(), source: source.into() };
    if !path.try_exists().map_err(unwritable)? {
        lock::owner_only(path).map_err(unwritable)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|source| open_error(path, source))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|source| open_error(path, source))?;
    Ok(connection)
}

/// Sets what durability and integrity need. Called once the file is known to be ours.
pub(crate) fn configure_writing(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    restrict_to_owner(path)?;
    refuse_read_only(path, connection)?;
    set_writing(connection).map_err(|source| open_error(path, source))
}

/// SQLite opens a file that it may not write for reading; then nothing would fail before the first deposit.
fn refuse_read_only(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    match connection.is_readonly("main") {
        Ok(false) => Ok(()),
        Ok(true) => {
            let source = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
            Err(OpenError::Unwritable { path: path.into(), source: source.into() })
        }
        Err(source) => Err(open_error(path, source)),
    }
}

/// Opens a connection that can only read. The writer is open, so the log exists.
pub(crate) fn open_reading(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "query_only", true)?;
            set_common(&connection, READER_CACHE_KIB)?;
            Ok(connection)
        })
        .map_err(|source| open_error(path, source))
}

/// Opens a connection that copies the database into another file, and so must be allowed to write, if not here.
pub(crate) fn open_copying(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    set_common(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

/// Opens a connection that moves the log into the database file, and does nothing else.
pub(crate) fn open_moving(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    set_syncing(&connection)?;
    set_common(&connection, READER_CACHE_KIB)?;
    Ok(connection)
}

/// What a failure while opening means to the operator.
pub(crate) fn open_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        _ => OpenError::Unwritable { path, source: source.into() },
    }
}

fn set_writing(connection: &Connection) -> rusqlite::Result<()> {
    // Takes effect on an empty file alone, and must come before the log.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        match row.get::<_, String>(0)?.as_str() {
            "wal" => Ok(()),
            _ => Err(rusqlite::Error::InvalidQuery),
        }
    })?;
    // FULL syncs the log at each commit; WAL's usual NORMAL would lose the last ones.
    connection.pragma_update(None, "synchronous", "FULL")?;
    set_syncing(connection)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    configure_in_memory(connection)
}

/// macOS keeps a plain fsync in the drive's cache; elsewhere these change nothing.
fn set_syncing(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)
}

/// What a database needs wherever it is.
pub(crate) fn configure_in_memory(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "foreign_keys", true)?;
    set_common(connection, WRITER_CACHE_KIB)
}

fn set_common(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Without this, SQLite plans a kept statement anew whenever its LIMIT or the like is bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Negative means KiB, positive would be pages.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    // A read error of mapped memory would be a signal that kills the process.
    connection.pragma_update(None, "mmap_size", 0)?;
    // A damaged page is reported as damage, and not walked.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

#[cfg(unix)]
fn restrict_to_owner(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|source| OpenError::Unwritable { path: path.into(), source: source.into() })
}

#[cfg(not(unix))]
fn restrict_to_owner(_path: &Path) -> Result<(), OpenError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_kept_statement_is_planned_once_whatever_its_limit_is() {
        let connection = Connection::open_in_memory().unwrap();
        configure_in_memory(&connection).unwrap();
        connection.execute_batch("CREATE TABLE numbers (number INTEGER NOT NULL) STRICT").unwrap();
        let sql = "SELECT number FROM numbers WHERE number > ?1 ORDER BY number LIMIT ?2";
        let mut select = connection.prepare(sql).unwrap();
        for limit in 1..10 {
            select.exists([limit, limit]).unwrap();
        }
        assert_eq!(select.get_status(StatementStatus::RePrepare), 0);
    }
}
