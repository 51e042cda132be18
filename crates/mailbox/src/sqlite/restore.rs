//! Makes a database of a backup. Ids begin anew, so that an acknowledgement of mail that came after the backup hits nothing else.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use restante_sqlite::{Database, Limits, OpenError};
use rusqlite::{Connection, Row, params};

use super::{schema, signed, unsigned};
use crate::EntryId;

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Mailboxes.
    pub mailboxes: u64,
    /// Envelopes in them.
    pub envelopes: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a database.
    #[error(
        "{path} exists already; stop the relay and move it away, together with its -wal and -shm files, before restoring"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The files can't be read or written.
    #[error(
        "cannot restore {backup} to {path}; check that this user may read the one and write beside the other, and that the disk has room"
    )]
    Files {
        /// The backup.
        backup: PathBuf,
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The backup is none, or damaged.
    #[error("the backup can't be used")]
    Backup(#[source] OpenError),
}

/// Makes the database at `path` of the one at `backup`; all of it or nothing.
pub(super) fn restore(backup: &Path, path: &Path) -> Result<Restored, RestoreError> {
    // A log that is left there would be taken for the log of what is restored.
    for taken in [path.to_owned(), beside(path, "-wal")] {
        if taken.symlink_metadata().is_ok() {
            return Err(RestoreError::Exists { path: taken });
        }
    }
    let part = beside(path, ".restoring");
    let files = |source| RestoreError::Files { backup: backup.into(), path: path.into(), source };
    clear(&part).and_then(|()| copy_with_log(backup, &part)).map_err(files)?;
    let restored = renumbered(&part);
    let published = restored.and_then(|restored| {
        publish(&part, path).map_err(files)?;
        Ok(restored)
    });
    if published.is_err() {
        let _ = clear(&part);
    }
    published
}

fn renumbered(part: &Path) -> Result<Restored, RestoreError> {
    let renumber = |connection: &Connection| {
        renumber(connection).map_err(|source| OpenError::of_sqlite(part, source))
    };
    let opened = Database::open_and(part, &schema::SCHEMA, Limits::default(), renumber);
    let (database, restored) = opened.map_err(RestoreError::Backup)?;
    // Moves the log into the file, which can then be given its name.
    drop(database);
    Ok(restored)
}

/// A file that was copied from a relay which did not stop in order has mail in its log, which opening then moves over.
fn copy_with_log(backup: &Path, part: &Path) -> std::io::Result<()> {
    copy(backup, part)?;
    let log = beside(backup, "-wal");
    if log.metadata().is_ok_and(|log| log.len() > 0) {
        copy(&log, &beside(part, "-wal"))?;
    }
    Ok(())
}

fn copy(backup: &Path, part: &Path) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut to = options.open(part)?;
    std::io::copy(&mut fs::File::open(backup)?, &mut to)?;
    to.sync_all()
}

/// Removes what an interrupted restore left.
fn clear(part: &Path) -> std::io::Result<()> {
    for ending in ["", "-wal", "-shm", ".lock"] {
        match fs::remove_file(beside(part, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn publish(part: &Path, path: &Path) -> std::io::Result<()> {
    let log = beside(part, "-wal");
    if log.metadata().is_ok_and(|log| log.len() > 0) {
        return Err(std::io::Error::other("the log could not be moved into the database"));
    }
    fs::rename(part, path)?;
    clear(part)?;
    sync_folder(path)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

struct Numbers {
    mailbox: i64,
    first: i64,
    last: i64,
}

fn renumber(connection: &Connection) -> rusqlite::Result<Restored> {
    let transaction = connection.unchecked_transaction()?;
    let sql = "SELECT mailbox, last_entry,
                   (SELECT min(entry) FROM envelopes WHERE envelopes.mailbox = mailboxes.mailbox
                    AND quarantined IN (0, 1))
               FROM mailboxes";
    let numbers = |row: &Row<'_>| {
        let last = row.get(1)?;
        Ok(Numbers {
            mailbox: row.get(0)?,
            first: row.get::<_, Option<i64>>(2)?.unwrap_or(last),
            last,
        })
    };
    let mut statement = transaction.prepare(sql)?;
    let mailboxes: Vec<Numbers> = statement.query_map([], numbers)?.collect::<Result<_, _>>()?;
    drop(statement);
    let mut envelopes = 0;
    for Numbers { mailbox, first, last } in &mailboxes {
        let Some(highest) = EntryId::new(unsigned(*last)) else { continue };
        let begin = signed(highest.after_restore(rand::random()).get());
        let further = begin - first;
        let sql = "UPDATE envelopes SET entry = entry + ?2 WHERE mailbox = ?1";
        envelopes += transaction.execute(sql, params![mailbox, further])? as u64;
        let sql = "UPDATE mailboxes SET last_entry = ?2 WHERE mailbox = ?1";
        transaction.execute(sql, params![mailbox, last + further])?;
    }
    transaction.commit()?;
    Ok(Restored { mailboxes: mailboxes.len() as u64, envelopes })
}
