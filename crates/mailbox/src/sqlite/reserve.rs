//! Keeps disk space back for the day when the disk is full.
//!
//! Removing mail writes to SQLite's log first. Without space for that, a full disk would stop acknowledgements and
//! expiry as well, and nothing would ever make room again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::Connection;

/// What the log holds while it is moved a little at a time (2 MiB, or 16 on a slow disk, see `restante-sqlite`), as much for what
/// the database file grows by, and room for what a long read keeps from being moved: a step of removing writes some hundred KiB. The
/// unit tests open hundreds of stores.
const RESERVE_BYTES: u64 = if cfg!(test) { 1024 * 1024 } else { 32 * 1024 * 1024 };
/// Written at once while the file is filled.
const PIECE_BYTES: usize = 1024 * 1024;
/// The smallest that a file system compares.
const BLOCK_BYTES: usize = 4096;

/// A file that does nothing but take up space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Released,
}

impl Reserve {
    /// The reserve beside `database`, filled if the disk has room.
    pub(super) fn open(database: &Path) -> Self {
        let path = database.with_extension("reserve");
        let found = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES);
        let state = if found { State::Whole } else { State::Released };
        let reserve = Self { path, state: Mutex::new(state) };
        reserve.refill();
        reserve
    }

    /// Gives the space to whoever makes room. From then on [`Self::admits`] counts.
    pub(super) fn release(&self) {
        let mut state = self.state();
        if *state == State::Whole {
            tracing::error!("the disk is full; deposits are refused until there is room again");
            let _ = fs::remove_file(&self.path);
            *state = State::Released;
        }
    }

    /// Takes the space back if the disk has it again.
    pub(super) fn refill(&self) {
        let mut state = self.state();
        if *state == State::Whole {
            return;
        }
        match fill(&self.path) {
            Ok(()) => *state = State::Whole,
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                tracing::warn!(%error, "the disk has no room for a reserve of {RESERVE_BYTES} bytes");
            }
        }
    }

    /// Whether a deposit may be stored: with the reserve away it would use up what removing needs, unless the
    /// database file itself has that much room.
    pub(super) fn admits(&self, connection: &Connection) -> rusqlite::Result<bool> {
        if *self.state() == State::Whole {
            return Ok(true);
        }
        let number = |sql| connection.query_row(sql, [], |row| row.get(0).map(super::unsigned));
        let free = number("PRAGMA freelist_count")?.saturating_mul(number("PRAGMA page_size")?);
        Ok(free >= RESERVE_BYTES)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Written, not only lengthened: a file with holes takes no space. And of noise, since some file systems compress; numbered, since
/// some keep what is alike once.
fn fill(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let random = SystemRandom::new();
    let mut piece = vec![0; PIECE_BYTES];
    random.fill(&mut piece).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    for number in 0..RESERVE_BYTES / PIECE_BYTES as u64 {
        for block in piece.chunks_exact_mut(BLOCK_BYTES) {
            block[..size_of::<u64>()].copy_from_slice(&number.to_ne_bytes());
        }
        file.write_all(&piece)?;
    }
    Ok(())
}
