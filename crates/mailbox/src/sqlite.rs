//! The embedded backend: SQLite.

mod accounts;
mod acknowledge;
mod body;
mod collect;
mod copies;
mod custody;
mod damage;
mod departures;
mod deposit;
mod expire;
mod lapse;
mod losses;
mod onward;
mod place;
mod registry;
mod reseal;
mod reserve;
mod restore;
mod schema;
mod seals;
mod spent;
mod summary;
mod upkeep;

use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, Limits, OpenError};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ahead::Ahead;
use crate::at_rest::Keys;
use crate::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Loss, MailboxStore, MailboxSummary, Page, Quotas, StoreError,
};
use collect::Reader;
use deposit::Row;
use reserve::Reserve;
use seals::Seals;

pub use restore::{RestoreError, Restored};

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
    waiting_bytes: Arc<Semaphore>,
    reserve: Arc<Reserve>,
    seals: Arc<Seals>,
    ahead: Arc<Mutex<Ahead>>,
    /// The last row that sealing anew looked at.
    resealed_row: Arc<AtomicI64>,
}

impl SqliteStore {
    /// Opens or creates the database at `path`, in which nothing is sealed.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_sealed(path, &Keys::none())
    }

    /// Opens or creates the database at `path`, which seals bodies with `keys`.
    pub fn open_sealed(path: &Path, keys: &Keys) -> Result<Self, OpenError> {
        Self::open_keeping(path, keys, schema::FIRST_TIME_TO_LIVE)
    }

    /// The same. Mail of a time when the database did not say how long it is kept, is kept for `time_to_live` from its
    /// deposit on.
    pub fn open_keeping(
        path: &Path,
        keys: &Keys,
        time_to_live: Duration,
    ) -> Result<Self, OpenError> {
        Self::open_within(path, keys, time_to_live, Limits::default())
    }

    fn open_within(
        path: &Path,
        keys: &Keys,
        time_to_live: Duration,
        limits: Limits,
    ) -> Result<Self, OpenError> {
        let is_first_schema = schema::is_first(path);
        let take = |connection: &Connection| {
            if is_first_schema && time_to_live != schema::FIRST_TIME_TO_LIVE {
                let kept = schema::keep_all(connection, time_to_live);
                kept.map_err(|source| OpenError::of_sqlite(path, source))?;
            }
            Seals::take(path, connection, keys)
        };
        let (database, seals) = Database::open_and(path, &schema::SCHEMA, limits, take)?;
        let (seals, ahead, resealed_row) = (Arc::new(seals), Arc::default(), Arc::default());
        let waiting_bytes = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        let reserve = Arc::new(Reserve::open(path));
        Ok(Self { database, waiting_bytes, reserve, seals, ahead, resealed_row })
    }

    /// Makes the database at `path`, where there is none, of a backup; no relay may use either meanwhile. Ids begin anew, far above
    /// those that were given out. Bodies stay sealed as they are.
    pub fn restore(backup: &Path, path: &Path) -> Result<Restored, RestoreError> {
        restore::restore(backup, path)
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

    /// A write that adds something: refused while what is kept back is away, which it would use up.
    async fn add<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reserve = self.reserve.clone();
        let write = move |connection: &Connection| match reserve.admits(connection)? {
            true => work(connection).map(Some),
            false => Ok(None),
        };
        self.database.write(write).await?.ok_or(StoreError::DiskFull)
    }

    fn reserve_memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        // One larger than everything allowed passes alone.
        let bytes = u32::try_from(bytes.min(WAITING_BYTES_MAX as u64)).unwrap_or(u32::MAX);
        self.waiting_bytes.clone().try_acquire_many_owned(bytes).map_err(|_| StoreError::Busy)
    }
}

#[async_trait]
impl MailboxStore for SqliteStore {
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError> {
        let reserved = self.reserve_memory(deposit.bytes())?;
        let seals = self.seals.clone();
        let row = pack(deposit.bytes(), move || Row::of(deposit, &seals)).await?;
        let (ahead, random) = (self.ahead.clone(), rand::random());
        self.add(move |connection| {
            let deposited = deposit::deposit(connection, &row, quotas, (&ahead, random));
            // The bytes wait until the writer has them, whether or not the caller does.
            drop((row, reserved));
            deposited
        })
        .await
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        collect::collect((&self.database, &self.seals), (Reader::Owner, recipient), after, page)
            .await
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        Ok(acknowledge::acknowledge(self, recipient, acknowledgements).await?)
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        let recipient = recipient.clone();
        Ok(self.database.read(move |connection| summary::depth(connection, &recipient)).await?)
    }

    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError> {
        let expire = || move |connection: &_| expire::expire(connection, due, batch_max);
        let expired = match self.make_room(expire).await {
            Err(error) if error.is_damage() => {
                expire::expire_one_by_one(&self.database, due, batch_max).await
            }
            expired => expired,
        };
        let reserve = self.reserve.clone();
        let refilled = tokio::task::spawn_blocking(move || reserve.refill());
        refilled.await.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(expired?)
    }

    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError> {
        let recipient = recipient.clone();
        Ok(self.database.read(move |connection| losses::losses(connection, &recipient)).await?)
    }

    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        let recipient = recipient.clone();
        let read = move |connection: &Connection| {
            let depth = summary::depth(connection, &recipient)?;
            Ok((depth, losses::losses(connection, &recipient)?))
        };
        Ok(self.database.read(read).await?)
    }

    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let forget = || {
            let recipient = recipient.clone();
            move |connection: &_| losses::forget(connection, &recipient, until)
        };
        Ok(self.make_room(forget).await?)
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

/// Names of mail that its recipient has from elsewhere; no lock is held while one waits.
fn names(ahead: &Mutex<Ahead>) -> MutexGuard<'_, Ahead> {
    ahead.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work`, which packs `bytes`, on a thread of its own if it takes long.
async fn pack<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    if bytes <= PACK_HERE_BYTES_MAX {
        return Ok(work());
    }
    let packing = tokio::task::spawn_blocking(work);
    packing.await.map_err(|error| StoreError::Unavailable(error.into()))
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
