//! Connections that only read, used on the runtime's blocking threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{OpenError, StoreError, connection};

/// The pool. As many reads run at once as there are connections; the others wait their turn.
pub(crate) struct Readers {
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    under_way: Arc<AtomicUsize>,
}

/// A read from before its thread begins until its result is there.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Readers {
    pub(crate) fn open(path: &Path, count: usize) -> Result<Self, OpenError> {
        let count = count.max(1);
        let connections: Result<Vec<_>, _> =
            (0..count).map(|_| connection::open_reading(path)).collect();
        Ok(Self {
            turns: Arc::new(Semaphore::new(count)),
            idle: Arc::new(Mutex::new(connections?)),
            under_way: Arc::default(),
        })
    }

    /// Reads that run on a thread; those that wait for a turn are not among them.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let idle = self.idle.clone();
        let under_way = UnderWay::begin(&self.under_way);
        let reading = tokio::task::spawn_blocking(move || {
            let _under_way = under_way;
            let connection = lock(&idle).pop().ok_or(StoreError::Closed)?;
            let result = catch_unwind(AssertUnwindSafe(|| in_snapshot(&connection, work)));
            lock(&idle).push(connection);
            // The next read may start only when the connection is back.
            drop(turn);
            result.map_err(|_| StoreError::Panicked)?.map_err(StoreError::from)
        });
        reading.await.map_err(|_| StoreError::Closed)?
    }
}

pub(crate) fn in_snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let snapshot = connection.unchecked_transaction()?;
    work(&snapshot)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
