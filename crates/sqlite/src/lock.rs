//! The lock file that keeps a second process out.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// Held as long as the database is open; the system releases it when the process dies.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock on `path`, in a file beside it: closing any handle of the database file itself
/// would release SQLite's own locks on it (POSIX advisory locks belong to the process).
pub(crate) fn acquire(path: &Path) -> Result<Lock, OpenError> {
    let file = owner_only(&lock_path(path))
        .map_err(|source| OpenError::Unwritable { path: path.into(), source: source.into() })?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => {
            Err(OpenError::Unwritable { path: path.into(), source: source.into() })
        }
    }
}

/// Opens the file for writing, and creates it with mode 0600 if it is not there.
pub(crate) fn owner_only(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}
