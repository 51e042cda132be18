//! The writer: one thread, one connection, one commit for all writes that wait together.

mod group;
mod log;
mod pending;

use std::path::Path;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::lock::Lock;
use crate::{Limits, OpenError, StoreError, connection};
use log::Log;
use pending::Write;

pub(crate) use group::commit;
pub(crate) use pending::Pending;

/// The queue's end; dropping it finishes the queue, closes the connection and waits for that.
pub(crate) struct Writer {
    /// `None` only while being dropped.
    queue: Option<mpsc::Sender<Box<dyn Write>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        path: &Path,
        mut connection: Connection,
        lock: Lock,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let (queue, writes) = mpsc::channel(limits.waiting_writes_max.max(1));
        let group_max = limits.group_max.max(1);
        let database = path.to_owned();
        let mut log = Log::of(&mut connection, path, limits.log_pages.max(1))
            .map_err(|source| connection::open_error(path, source))?;
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || {
                serve(&connection, writes, group_max, &database, &mut log);
                drop(log);
                close(connection);
                drop(lock);
            })
            .map_err(|source| OpenError::Unwritable { path: path.into(), source: source.into() })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let queue = self.queue.as_ref().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.try_send(Box::new(Pending::new(work, reply))).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => StoreError::Closed,
        })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        let Some(thread) = self.thread.take() else { return };
        // The last clone may have lived in a write, which the writer itself drops.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the database's writer panicked");
        }
    }
}

fn serve(
    connection: &Connection,
    mut writes: mpsc::Receiver<Box<dyn Write>>,
    group_max: usize,
    database: &Path,
    log: &mut Log,
) {
    while let Some(first) = writes.blocking_recv() {
        let mut group = vec![first];
        while group.len() < group_max
            && let Ok(next) = writes.try_recv()
        {
            group.push(next);
        }
        commit(connection, group, database);
        log.committed(connection);
    }
}

fn close(connection: Connection) {
    let checkpoint = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = checkpoint {
        // Nothing is lost: the next start reads the log.
        tracing::warn!(%error, "the database's log could not be moved into its file");
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}
