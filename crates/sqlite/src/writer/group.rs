//! One transaction for a group of writes, a savepoint for each if there are several.

use std::io::Write as _;
use std::path::Path;
use std::vec::IntoIter;

use rusqlite::{Connection, ErrorCode};

use super::pending::Write;
use crate::{StoreError, lock};

/// Commits the group and answers each write, those that failed with their own error.
///
/// SQLite may give up a whole transaction because of one statement (a full disk does that). Then
/// the writes before it are lost and answered so, and those after it get a transaction of their own.
pub(crate) fn commit(connection: &Connection, group: Vec<Box<dyn Write>>, database: &Path) {
    let mut waiting = group.into_iter();
    while waiting.len() > 0 {
        let mut ran = Vec::with_capacity(waiting.len());
        let fate = transaction(connection, &mut waiting, &mut ran)
            .map_err(|error| full_disk_or(error, database));
        if fate.is_err() {
            undo(connection);
        }
        for write in ran {
            write.answer(fate.as_ref().copied().map_err(StoreError::duplicate));
        }
    }
}

/// Moves writes from `waiting` to `ran`, at least one; an `Err` says that none of `ran` took effect.
fn transaction(
    connection: &Connection,
    waiting: &mut IntoIter<Box<dyn Write>>,
    ran: &mut Vec<Box<dyn Write>>,
) -> Result<(), StoreError> {
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        ran.extend(waiting);
        return Err(error.into());
    }
    let is_alone = waiting.len() == 1;
    for mut write in waiting {
        // What undoes the transaction undoes its only write.
        let result = match is_alone {
            true => write.run(connection),
            false => in_savepoint(connection, write.as_mut()),
        };
        ran.push(write);
        result?;
    }
    Ok(execute(connection, "COMMIT")?)
}

/// An `Err` says that the whole transaction is lost; a write that merely failed is undone alone.
fn in_savepoint(connection: &Connection, write: &mut dyn Write) -> Result<(), StoreError> {
    execute(connection, "SAVEPOINT one_write")?;
    if let Err(error) = write.run(connection) {
        if connection.is_autocommit() {
            return Err(error);
        }
        execute(connection, "ROLLBACK TO one_write")?;
    }
    Ok(execute(connection, "RELEASE one_write")?)
}

fn undo(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = execute(connection, "ROLLBACK")
    {
        tracing::error!(%error, "a failed transaction could not be rolled back");
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// SQLite reports a used-up quota, and a full disk met while syncing, as a plain input/output
/// error; only the disk can tell.
fn full_disk_or(error: StoreError, database: &Path) -> StoreError {
    match error {
        StoreError::Sqlite(source)
            if source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
                && is_disk_full(database) =>
        {
            StoreError::DiskFull
        }
        other => other,
    }
}

fn is_disk_full(database: &Path) -> bool {
    const PROBE_BYTES: usize = 64 * 1024;
    let probe = database.with_extension("probe");
    let written = lock::owner_only(&probe).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    });
    // What can't be removed is written over by the next probe.
    let _ = std::fs::remove_file(&probe);
    written.is_err_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    })
}
