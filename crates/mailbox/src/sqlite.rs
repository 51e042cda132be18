//! The embedded backend: SQLite.

mod acknowledge;
mod body;
mod collect;
mod deposit;
mod expire;
mod reserve;
mod schema;
mod summary;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, Limits, OpenError};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, EntryId, Expired,
    MailboxLimits, MailboxStore, MailboxSummary, Page, StoreError,
};
use deposit::Row;
use reserve::Reserve;

/// Bytes of deposits that may wait for the disk; one more is [`StoreError::Busy`]. The database
/// bounds their number, and a thousand of the largest would fill the memory.
const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Bytes up to which a body is packed on the caller's own thread: a fifth of a millisecond, less
/// than another thread would cost to wake when many wait.
const PACK_HERE_BYTES_MAX: u64 = 64 * 1024;

/// On SQLite: one file, deposits that arrive together share a commit.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    database: Database,
    limits: MailboxLimits,
    waiting_bytes: Arc<Semaphore>,
    reserve: Arc<Reserve>,
}

impl SqliteStore {
    /// Opens or creates the database at `path`.
    pub fn open(path: &Path, limits: MailboxLimits) -> Result<Self, OpenError> {
        let database = Database::open(path, &schema::SCHEMA, Limits::default())?;
        let waiting_bytes = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        let reserve = Arc::new(Reserve::open(path));
        Ok(Self { database, limits, waiting_bytes, reserve })
    }

    /// A write that removes something: on a full disk it may use what is kept back.
    async fn make_room<T, F>(&self, work: impl Fn() -> F) -> Result<T, restante_sqlite::StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match self.database.write(work()).await {
            Err(restante_sqlite::StoreError::DiskFull) => {
                self.reserve.release();
                self.database.write(work()).await
            }
            written => written,
        }
    }

    fn reserve_memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        // One larger than everything allowed passes alone.
        let bytes = u32::try_from(bytes.min(WAITING_BYTES_MAX as u64)).unwrap_or(u32::MAX);
        self.waiting_bytes.clone().try_acquire_many_owned(bytes).map_err(|_| StoreError::Busy)
    }
}

#[async_trait]
impl MailboxStore for SqliteStore {
    async fn deposit(&self, deposit: Deposit) -> Result<Deposited, StoreError> {
        let reserved = self.reserve_memory(deposit.bytes())?;
        let row = if deposit.bytes() <= PACK_HERE_BYTES_MAX {
            Row::of(deposit)
        } else {
            let packing = tokio::task::spawn_blocking(move || Row::of(deposit));
            packing.await.map_err(|error| StoreError::Unavailable(error.into()))?
        };
        let (limits, random, reserve) = (self.limits, rand::random(), self.reserve.clone());
        let write = move |connection: &_| {
            let deposited = match reserve.admits(connection) {
                Ok(true) => deposit::deposit(connection, &row, limits, random).map(Some),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            };
            // The bytes wait until the writer has them, whether or not the caller does.
            drop((row, reserved));
            deposited
        };
        self.database.write(write).await?.ok_or(StoreError::DiskFull)
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        collect::collect(&self.database, recipient, after, page).await
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        let acknowledge = || {
            let (recipient, acknowledgements) = (recipient.clone(), acknowledgements.to_vec());
            move |connection: &_| {
                acknowledge::acknowledge(connection, &recipient, &acknowledgements)
            }
        };
        Ok(self.make_room(acknowledge).await?)
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        let recipient = recipient.clone();
        Ok(self.database.read(move |connection| summary::depth(connection, &recipient)).await?)
    }

    async fn expire(
        &self,
        deposited_before: Timestamp,
        batch_max: usize,
    ) -> Result<Expired, StoreError> {
        let expire =
            || move |connection: &_| expire::expire(connection, deposited_before, batch_max);
        let expired = match self.make_room(expire).await {
            Err(error) if expire::is_damage(&error) => {
                expire::expire_one_by_one(&self.database, deposited_before, batch_max).await?
            }
            expired => expired?,
        };
        let reserve = self.reserve.clone();
        let refilled = tokio::task::spawn_blocking(move || reserve.refill());
        refilled.await.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(expired)
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        let after = after.cloned();
        let read = move |connection: &_| summary::list(connection, after.as_ref(), limit);
        Ok(self.database.read(read).await?)
    }

    async fn health(&self) -> Result<(), StoreError> {
        let write = |connection: &Connection| {
            connection.prepare_cached("UPDATE health SET checks = checks + 1")?.execute([])
        };
        self.database.write(write).await?;
        Ok(())
    }
}

impl From<restante_sqlite::StoreError> for StoreError {
    fn from(error: restante_sqlite::StoreError) -> Self {
        match error {
            restante_sqlite::StoreError::DiskFull => Self::DiskFull,
            restante_sqlite::StoreError::Busy => Self::Busy,
            other => Self::Unavailable(other.into()),
        }
    }
}

/// SQLite's integers are signed; a number that would not fit is as good as the largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count that went below zero was damaged; nothing is a safe reading of it.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
