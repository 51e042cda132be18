//! The disk that a test holds in its hand.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::folder::Folder;
use crate::plan::{Fault, Lie};
use crate::{Loss, loss, vfs};

/// A watched folder; files directly in it are acted on, from their next opening until this is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: Arc<Folder>,
}

impl Disk {
    /// Watches `folder`, whose files are taken to be durable. `seed` decides what failed syncs leave.
    ///
    /// The first call puts the file system under all connections that the process opens from then on.
    pub fn watch(folder: &Path, seed: u64) -> io::Result<Self> {
        vfs::install()?;
        // SQLite asks by the path without symbolic links.
        let folder = Arc::new(Folder::new(folder.canonicalize()?, seed)?);
        vfs::watch(folder.clone());
        Ok(Self { folder })
    }

    /// The power goes in the middle of the `change`-th write, truncation, sync or deletion from this moment.
    pub fn cut_power_at(&self, change: u64) {
        self.folder.plan(|plan| plan.cut_power_at(change));
    }

    /// The power goes.
    pub fn cut_power(&self) {
        self.folder.plan(|plan| plan.cut_power());
    }

    /// Whether the power is gone.
    pub fn is_off(&self) -> bool {
        self.folder.plan(|plan| plan.is_off())
    }

    /// Cuts the power, if it is on, and writes what the disk holds after that into the empty folder `into`. What had
    /// files open here goes on failing. The same seed loses the same, and is told how.
    pub fn power_loss(&self, seed: u64, into: &Path) -> io::Result<Loss> {
        let mut rng = loss::rng(seed);
        let loss = Loss::draw(&mut rng);
        self.cut_power();
        self.folder.leave(loss, &mut rng, into)?;
        Ok(loss)
    }

    /// Writes, truncations, syncs and deletions that were asked for so far.
    pub fn changes(&self) -> u64 {
        self.folder.plan(|plan| plan.changes())
    }

    /// Plans one failure, in the place of any that was planned.
    pub fn fail(&self, fault: Fault) {
        self.folder.plan(|plan| plan.fail(Some(fault)));
    }

    /// Plans no failure, and takes changes again.
    pub fn heal(&self) {
        self.folder.plan(|plan| {
            plan.fail(None);
            plan.is_read_only = false;
        });
    }

    /// Operations that failed by plan so far.
    pub fn failed(&self) -> u64 {
        self.folder.plan(|plan| plan.failed())
    }

    /// Takes no changes from this moment; files that are opened are opened for reading.
    pub fn make_read_only(&self) {
        self.folder.plan(|plan| plan.is_read_only = true);
    }

    /// Says "synced" from this moment where nothing is.
    pub fn lie_about_syncs(&self, lie: Lie) {
        self.folder.plan(|plan| plan.lie = Some(lie));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        vfs::forget(self.folder.path());
    }
}
