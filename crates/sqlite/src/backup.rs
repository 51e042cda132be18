//! A copy of a database that goes on being used: as it stands at one moment, whole and durable, or not there at all.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::connection;

/// Why there is no copy. Each message tells the operator what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something has that name; a backup never replaces another.
    #[error("{path} exists already; choose another name for the backup")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be written.
    #[error(
        "cannot write the backup {path}; check that the folder exists, that this user may write there, and that it has room"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One copy at a time: two of the same name would be each other's ruin.
    #[error("a backup is being written already; wait for it to end")]
    UnderWay,
    /// The database is in memory.
    #[error("the database is in memory; there is nothing to back up")]
    InMemory,
}

/// Copies the database at `database`, which is open for writing, to `path`, and tells the copy's bytes.
pub(crate) fn backup(database: &Path, path: &Path) -> Result<u64, BackupError> {
    if path.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: path.into() });
    }
    let part = part_path(path);
    let copied = copy(database, &part).and_then(|bytes| {
        publish(&part, path)?;
        Ok(bytes)
    });
    copied.map_err(|source| {
        // What is not whole must not look like a backup.
        let _ = fs::remove_file(&part);
        BackupError::Unwritable { path: path.into(), source }
    })
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

fn copy(database: &Path, part: &Path) -> Result<u64, Trouble> {
    // What an interrupted backup left there is worth nothing.
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(part)?;
    let target = part.to_str().ok_or("the name of the file is not valid UTF-8")?;
    let source = connection::open_copying(database)?;
    // Reads one snapshot; SQLite itself does not sync what it writes here.
    source.execute("VACUUM INTO ?1", [target])?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Gives the finished file its name.
fn publish(part: &Path, path: &Path) -> io::Result<()> {
    fs::rename(part, path)?;
    sync_folder(path)
}

/// A name is durable only when its folder is.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn part_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".part");
    name.into()
}
