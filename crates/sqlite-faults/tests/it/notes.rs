//! A table of numbered notes, one commit each.

use std::path::{Path, PathBuf};

use restante_sqlite_faults::Site;
use rusqlite::Connection;

/// How a database is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) journal: &'static str,
    pub(crate) synchronous: &'static str,
}

pub(crate) fn site() -> Site {
    Site::new(0, None).unwrap()
}

pub(crate) fn database(site: &Site) -> PathBuf {
    site.path().join("notes.sqlite")
}

pub(crate) fn open(path: &Path, manner: Manner) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update_and_check(None, "journal_mode", manner.journal, |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", manner.synchronous)?;
    // Often enough that losses fall into it.
    connection.pragma_update(None, "wal_autocheckpoint", 8)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    )?;
    Ok(connection)
}

/// Adds notes 1, 2, … until `last`, or until that fails; how many were answered.
pub(crate) fn add(connection: &Connection, last: u32) -> u32 {
    for number in 1..=last {
        // Several pages, so that there is something to tear.
        let text = number.to_string().repeat(3000);
        if connection.execute("INSERT INTO notes VALUES (?1, ?2)", (number, text)).is_err() {
            return number - 1;
        }
    }
    last
}

/// How many notes are there, if they are whole and without a gap.
pub(crate) fn count(connection: &Connection) -> Result<u32, String> {
    let intact: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| error.to_string())?;
    if intact != "ok" {
        return Err(intact);
    }
    let notes = read(connection).map_err(|error| error.to_string())?;
    for (expected, (number, text)) in (1..).zip(&notes) {
        if *number != expected || *text != number.to_string().repeat(3000) {
            return Err(format!("note {number} in the place of {expected}"));
        }
    }
    Ok(notes.len() as u32)
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<(u32, String)>> {
    let mut statement = connection.prepare("SELECT number, text FROM notes ORDER BY number")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
