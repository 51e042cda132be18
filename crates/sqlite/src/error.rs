//! What can go wrong with a database, and whether trying again may help.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::connection;

/// Why a database could not be opened. Each message tells the operator what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or file can't be written.
    #[error(
        "cannot open the database {path}; check that the folder exists and that this user may write there"
    )]
    Unwritable {
        /// The database file.
        path: PathBuf,
        /// What SQLite or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("the database {path} is in use by another process; stop that one first")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error(
        "the database {path} has schema {found}, newer than this program's {known}; install a newer restante"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// Not a database of this kind.
    #[error("{path} is not a {kind} database of restante; choose another folder")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The kind that was expected.
        kind: &'static str,
    },
    /// What it holds can't be used as the program was told to.
    #[error("cannot use the database {path}: {source}")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What is wrong, and what to do.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its pages contradict each other.
    #[error(
        "the database {path} is damaged; restore it from a backup, or move it away to start empty"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It could not be brought to the newest schema; it stands as it was before the step.
    #[error(
        "cannot bring the database {path} to schema {version}; check that the disk has room, then start again"
    )]
    Migration {
        /// The database file.
        path: PathBuf,
        /// The schema that was not reached.
        version: u32,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What a failure of SQLite while opening `path` means to the operator.
    pub fn of_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        connection::open_error(path, source)
    }
}

/// Why a read or a write did not happen. Nothing of it took effect, with one exception: a write that failed because the
/// disk did not confirm it may be found, whole, after the next start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// More writes wait than the queue holds, or another program keeps the file locked.
    #[error("the database is busy; try again")]
    Busy,
    /// The database is closed or its writer is gone.
    #[error("the database is closed")]
    Closed,
    /// The work panicked; it was undone, and the database goes on.
    #[error("a database operation panicked")]
    Panicked,
    /// Anything else that SQLite reports.
    #[error("database error")]
    Sqlite(#[source] rusqlite::Error),
}

impl StoreError {
    /// Whether pages contradict each other, or values what they are: trying again helps nothing.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite(source) if is_damaged(source))
    }

    /// The same error for another caller of a failed group.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::DiskFull => Self::DiskFull,
            Self::Busy => Self::Busy,
            Self::Closed => Self::Closed,
            Self::Panicked => Self::Panicked,
            Self::Sqlite(source) => Self::Sqlite(duplicate(source)),
        }
    }
}

/// [`StoreError::is_damage`] of one statement.
pub fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    let is_of_value = matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | Utf8Error(..)
    );
    is_of_value || error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Sqlite(source),
        }
    }
}

/// `rusqlite::Error` has no `Clone`. What is not SQLite's own comes from the work of one write and
/// ends with it, so that its text is enough for the others.
fn duplicate(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            rusqlite::Error::SqliteFailure(*code, message.clone())
        }
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}
