//! One watched folder: what its files hold, what is durable of that, and what goes wrong.
//!
//! Every operation is carried out on the real file under the folder's lock, so that what is noted of it has the same
//! order as what others see.

use std::collections::BTreeSet;
use std::io;
use std::os::raw::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rusqlite::ffi;

use crate::content::Content;
use crate::directory::{Directory, FileId};
use crate::plan::{Lie, Operation, Plan, Trouble, Verdict};
use crate::{Loss, loss};

/// A folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    directory: Directory,
    files: Vec<Content>,
    /// What was there when the folder was first watched, as far as nobody opened it since.
    found: BTreeSet<String>,
    rng: StdRng,
}

/// What lay under a name before it was opened.
enum Before {
    Known(FileId),
    Found(Vec<u8>),
    Absent,
}

/// What a file is to SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Log,
    Other,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, seed: u64) -> io::Result<Self> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(&path)? {
            found.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        let state = State {
            plan: Plan::default(),
            directory: Directory::default(),
            files: Vec::new(),
            found,
            rng: loss::rng(seed),
        };
        Ok(Self { path, state: Mutex::new(state) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.state().plan)
    }

    /// Opens `name` with `real`, which says whether SQLite's own file system could.
    pub(crate) fn open(&self, name: &str, real: impl FnOnce() -> c_int) -> Result<FileId, c_int> {
        let mut state = self.state();
        if state.plan.judge(Operation::Open) != Verdict::Goes {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        let path = self.path.join(name);
        // Closing a handle that SQLite does not know would release its locks, so that no known file is read.
        let before = match state.directory.file(name) {
            Some(file) if path.exists() => Before::Known(file),
            _ => std::fs::read(path).map_or(Before::Absent, Before::Found),
        };
        let opened = real();
        if opened != ffi::SQLITE_OK {
            return Err(opened);
        }
        Ok(state.opened(name, before))
    }

    pub(crate) fn read(&self, bytes: &mut [u8], real: impl FnOnce(&mut [u8]) -> c_int) -> c_int {
        let verdict = self.state().plan.judge(Operation::Read);
        match verdict {
            Verdict::Goes => real(bytes),
            Verdict::Fails(Trouble::FlippedBit) => {
                let read = real(bytes);
                let bit = self.state().rng.random_range(0..bytes.len().max(1) * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                read
            }
            _ => ffi::SQLITE_IOERR_READ,
        }
    }

    pub(crate) fn write(
        &self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        real: impl FnOnce(&[u8]) -> c_int,
    ) -> c_int {
        let mut state = self.state();
        let (written, answer) = match state.plan.judge(Operation::Write) {
            Verdict::Goes => (bytes, ffi::SQLITE_OK),
            Verdict::Fails(trouble) => (&bytes[..bytes.len() / 2], write_error(trouble)),
            Verdict::LosesPower => {
                state.files[file].write(offset, bytes);
                return ffi::SQLITE_IOERR_WRITE;
            }
            Verdict::NoPower | Verdict::ReadOnly => return ffi::SQLITE_IOERR_WRITE,
        };
        match real(written) {
            ffi::SQLITE_OK => {
                state.files[file].write(offset, written);
                answer
            }
            error => error,
        }
    }

    pub(crate) fn truncate(
        &self,
        file: FileId,
        length: u64,
        real: impl FnOnce() -> c_int,
    ) -> c_int {
        let mut state = self.state();
        match state.plan.judge(Operation::Truncate) {
            Verdict::Goes => {
                let truncated = real();
                if truncated == ffi::SQLITE_OK {
                    state.files[file].truncate(length);
                }
                truncated
            }
            Verdict::LosesPower => {
                state.files[file].truncate(length);
                ffi::SQLITE_IOERR_TRUNCATE
            }
            _ => ffi::SQLITE_IOERR_TRUNCATE,
        }
    }

    /// Makes `file` durable, and the folder's names as well where SQLite syncs them.
    pub(crate) fn sync(&self, file: FileId, role: Role, with_names: &mut bool) -> c_int {
        let mut state = self.state();
        let state = &mut *state;
        match state.plan.judge(Operation::Sync) {
            Verdict::Goes => match state.plan.lie {
                Some(Lie::Everything) => ffi::SQLITE_OK,
                Some(Lie::Log) if role == Role::Log => ffi::SQLITE_OK,
                _ => {
                    state.files[file].sync();
                    if std::mem::take(with_names) {
                        state.directory.sync();
                    }
                    ffi::SQLITE_OK
                }
            },
            Verdict::Fails(_) => {
                state.files[file].fail_to_sync(&mut state.rng);
                ffi::SQLITE_IOERR_FSYNC
            }
            _ => ffi::SQLITE_IOERR_FSYNC,
        }
    }

    pub(crate) fn delete(
        &self,
        name: &str,
        with_names: bool,
        real: impl FnOnce() -> c_int,
    ) -> c_int {
        let mut state = self.state();
        match state.plan.judge(Operation::Delete) {
            Verdict::Goes => {
                let deleted = real();
                if deleted == ffi::SQLITE_OK {
                    state.directory.delete(name);
                    if with_names && state.plan.lie != Some(Lie::Everything) {
                        state.directory.sync();
                    }
                }
                deleted
            }
            Verdict::LosesPower => {
                state.directory.delete(name);
                ffi::SQLITE_IOERR_DELETE
            }
            _ => ffi::SQLITE_IOERR_DELETE,
        }
    }

    /// Writes what is on the disk after a loss of power into the folder `into`.
    pub(crate) fn leave(&self, loss: Loss, rng: &mut StdRng, into: &Path) -> io::Result<()> {
        let state = self.state();
        for (name, file) in state.directory.after(loss, rng) {
            std::fs::write(into.join(name), state.files[file].after(loss, rng))?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn opened(&mut self, name: &str, before: Before) -> FileId {
        let was_found = self.found.remove(name);
        let bytes = match before {
            Before::Known(file) => return file,
            Before::Found(bytes) => bytes,
            Before::Absent => Vec::new(),
        };
        let file = self.files.len();
        self.files.push(Content::durable(bytes));
        if was_found {
            self.directory.found(name, file);
        } else {
            // By SQLite, or by somebody who did not sync the folder.
            self.directory.create(name, file);
        }
        file
    }
}

fn write_error(trouble: Trouble) -> c_int {
    match trouble {
        Trouble::Full => ffi::SQLITE_FULL,
        Trouble::Broken | Trouble::FlippedBit => ffi::SQLITE_IOERR_WRITE,
    }
}
