//! One writer thread that groups commits, and a few reader connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Mutex;

use crate::in_place::InPlace;
use crate::readers::Readers;
use crate::writer::Writer;
use crate::{BackupError, OpenError, Schema, StoreError, backup, connection, lock, migrations};

/// Bounds of a database's queues.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Writes that may wait for the writer; one more is [`StoreError::Busy`].
    pub waiting_writes_max: usize,
    /// Writes that share one commit.
    pub group_max: usize,
    /// Reader connections.
    pub readers: usize,
    /// Pages of 4 KiB in the log from which on it is moved into the database file, beside the writer; on a disk that is slow
    /// at that, eight times as many. When it grew by 32 times as many meanwhile, the writer waits. A read that lasts keeps
    /// what it may still read in the log.
    pub log_pages: usize,
}

impl Default for Limits {
    /// A group of 256 already hides the fsync, and larger ones only delay their first write. Four
    /// full groups may wait, which a slow disk works off within a second. Two readers keep one
    /// long read from stopping the others at half a mebibyte of cache each. Syncing 2 MiB of the log's pages delays the
    /// commits meanwhile by some milliseconds, 16 MiB did so by 10 to 20.
    fn default() -> Self {
        Self { waiting_writes_max: 1024, group_max: 256, readers: 2, log_pages: 512 }
    }
}

/// A database. Clones share it; the last one dropped closes it: the writer finishes its queue and
/// moves the log into the database file, and the drop waits for that.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

enum Shared {
    /// Fields drop in this order: the writer's connection is the last one open, so that SQLite can
    /// remove the log.
    Threads {
        readers: Readers,
        writer: Writer,
        path: PathBuf,
        copying: Arc<Mutex<()>>,
    },
    InPlace(InPlace),
}

impl Database {
    /// Opens or creates the database at `path` (file mode 0600) and brings it to the newest schema.
    /// The file is locked against a second process.
    pub fn open(path: &Path, schema: &Schema, limits: Limits) -> Result<Self, OpenError> {
        Self::open_and(path, schema, limits, |_| Ok(())).map(|(database, ())| database)
    }

    /// The same; `first` sees the database before anybody else does, at the newest schema, and may write.
    pub fn open_and<T>(
        path: &Path,
        schema: &Schema,
        limits: Limits,
        first: impl FnOnce(&Connection) -> Result<T, OpenError>,
    ) -> Result<(Self, T), OpenError> {
        let lock = lock::acquire(path)?;
        let mut writing = connection::open_writing(path)?;
        migrations::check(path, &writing, schema)?;
        connection::configure_writing(path, &writing)?;
        migrations::migrate(path, &mut writing, schema)?;
        let found = first(&writing)?;
        let readers = Readers::open(path, limits.readers)?;
        let writer = Writer::start(path, writing, lock, limits)?;
        let path = path.to_owned();
        Ok((
            Self {
                shared: Arc::new(Shared::Threads {
                    readers,
                    writer,
                    path,
                    copying: Arc::default(),
                }),
            },
            found,
        ))
    }

    /// A database in memory for simulations in virtual time: reads and writes run on the caller's own task, and take
    /// as long as `duration` says.
    pub fn open_in_place(
        schema: &Schema,
        duration: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let in_place = InPlace::open(schema, Box::new(duration))?;
        Ok(Self { shared: Arc::new(Shared::InPlace(in_place)) })
    }

    /// The same data after a simulated crash: whoever still holds `self` or a clone of it gets [`StoreError::Closed`].
    /// `None` for a database in a file, which is opened again by its path.
    pub fn reopened(&self) -> Option<Self> {
        let Shared::InPlace(in_place) = &*self.shared else { return None };
        Some(Self { shared: Arc::new(Shared::InPlace(in_place.reopened())) })
    }

    /// Runs `work` on the writer, so that it can be undone alone; when this returns `Ok`, its effect is on disk.
    /// An `Err` of `work`, or of the commit, leaves no effect.
    ///
    /// A write once queued runs even if the caller stops waiting for it. `work` begins and ends no
    /// transaction itself, and does nothing slow: every other write waits for it.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &*self.shared {
            Shared::Threads { writer, .. } => writer.write(work).await,
            Shared::InPlace(in_place) => in_place.write(work).await,
        }
    }

    /// Runs `work` on a reader, on a consistent snapshot that holds every write finished before.
    ///
    /// Waits for a free reader; `work` can't write.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &*self.shared {
            Shared::Threads { readers, .. } => readers.read(work).await,
            Shared::InPlace(in_place) => in_place.read(work).await,
        }
    }

    /// Reads that run on a thread at present: a clock that a test moves on has to wait for them.
    pub fn reads_under_way(&self) -> usize {
        match &*self.shared {
            Shared::Threads { readers, .. } => readers.under_way(),
            Shared::InPlace(_) => 0,
        }
    }

    /// Copies all that is in the database at one moment to a new file (mode 0600), and tells its bytes; when this returns `Ok`,
    /// the copy is on disk. Reads and writes go on meanwhile; the log grows by what is written until the copy is done.
    pub async fn backup(&self, copy: &Path) -> Result<u64, BackupError> {
        let Shared::Threads { path, copying, .. } = &*self.shared else {
            return Err(BackupError::InMemory);
        };
        // Held for as long as the copying goes on, though nobody may wait for it any longer.
        let turn = copying.clone().try_lock_owned().map_err(|_| BackupError::UnderWay)?;
        let (path, copy) = (path.clone(), copy.to_owned());
        let unwritable = copy.clone();
        let copying = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            backup::backup(&path, &copy)
        });
        copying.await.unwrap_or_else(|error| {
            Err(BackupError::Unwritable { path: unwritable, source: error.into() })
        })
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}
