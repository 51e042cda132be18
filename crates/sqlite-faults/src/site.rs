//! A folder for one test, on a disk of its own, over losses of power.

use std::io;
use std::path::Path;

use tempfile::TempDir;

use crate::{Disk, Lie, Loss};

/// A temporary folder that is watched.
#[derive(Debug)]
pub struct Site {
    disk: Disk,
    folder: TempDir,
    seed: u64,
    lie: Option<Lie>,
}

impl Site {
    /// An empty one; on a disk that lies, if `lie` says so.
    pub fn new(seed: u64, lie: Option<Lie>) -> io::Result<Self> {
        Self::at(empty_folder()?, seed, lie)
    }

    fn at(folder: TempDir, seed: u64, lie: Option<Lie>) -> io::Result<Self> {
        let disk = Disk::watch(folder.path(), seed)?;
        lie.into_iter().for_each(|lie| disk.lie_about_syncs(lie));
        Ok(Self { disk, folder, seed, lie })
    }

    /// Its disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Where it is; elsewhere after a loss of power.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The power goes, and is back: what the disk holds is in a new folder, on a disk with nothing planned. Whoever had
    /// files open goes on failing.
    pub fn lose_power(&mut self, seed: u64) -> io::Result<Loss> {
        let folder = empty_folder()?;
        let loss = self.disk.power_loss(seed, folder.path())?;
        *self = Self::at(folder, self.seed, self.lie)?;
        Ok(loss)
    }
}

/// In memory where there is such a place: no test depends on what the machine's own disk keeps.
fn empty_folder() -> io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
