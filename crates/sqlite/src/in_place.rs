//! A database in memory whose work runs on the caller's own task: no thread, so that a simulation in virtual time
//! sees every wait, and the same seed takes the same course.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::readers::in_snapshot;
use crate::writer::{Pending, commit};
use crate::{OpenError, Schema, StoreError, connection, migrations};

/// What stands for the path of a database that has none.
const NO_PATH: &str = ":memory:";

/// One opening of the database.
pub(crate) struct InPlace {
    data: Arc<Data>,
    is_open: AtomicBool,
}

/// The one connection, and how long each operation takes.
struct Data {
    connection: Mutex<Connection>,
    duration: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl InPlace {
    pub(crate) fn open(
        schema: &Schema,
        duration: Box<dyn Fn() -> Duration + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let path = Path::new(NO_PATH);
        let open_error = |source| connection::open_error(path, source);
        let mut opened = Connection::open_in_memory().map_err(open_error)?;
        connection::configure_in_memory(&opened).map_err(open_error)?;
        migrations::migrate(path, &mut opened, schema)?;
        let data = Arc::new(Data { connection: Mutex::new(opened), duration });
        Ok(Self { data, is_open: AtomicBool::new(true) })
    }

    /// The same data, for whoever starts after this opening's owner died.
    pub(crate) fn reopened(&self) -> Self {
        self.is_open.store(false, Ordering::SeqCst);
        Self { data: self.data.clone(), is_open: AtomicBool::new(true) }
    }

    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.check_open()?;
        // At once: a write runs even if its caller stops waiting for it.
        let (reply, mut answer) = oneshot::channel();
        let write = Box::new(Pending::new(work, reply));
        commit(&self.connection(), vec![write], Path::new(NO_PATH));
        pass((self.data.duration)()).await;
        self.check_open()?;
        answer.try_recv().unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let half = (self.data.duration)() / 2;
        pass(half).await;
        self.check_open()?;
        let result = catch_unwind(AssertUnwindSafe(|| in_snapshot(&self.connection(), work)));
        // Meanwhile others write: what was read may be old when the caller gets it, as with any reader.
        pass(half).await;
        result.map_err(|_| StoreError::Panicked)?.map_err(StoreError::from)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_open.load(Ordering::SeqCst) { Ok(()) } else { Err(StoreError::Closed) }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.data.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, Migration};

    const SCHEMA: Schema = Schema {
        kind: "numbers",
        application_id: 7,
        migrations: &[Migration { sql: "CREATE TABLE numbers (number INTEGER NOT NULL) STRICT" }],
    };

    fn insert(number: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        move |connection| connection.execute("INSERT INTO numbers VALUES (?1)", [number])
    }

    async fn sum(database: &Database) -> i64 {
        let sql = "SELECT coalesce(sum(number), 0) FROM numbers";
        database.read(|connection| connection.query_row(sql, [], |row| row.get(0))).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_or_panicking_write_leaves_no_effect_and_the_others_stand() {
        let database = Database::open_in_place(&SCHEMA, || Duration::ZERO).unwrap();
        database.write(insert(1)).await.unwrap();
        let failed = database.write(|connection| {
            insert(2)(connection)?;
            connection.execute("INSERT INTO nowhere VALUES (1)", [])
        });
        assert!(matches!(failed.await, Err(StoreError::Sqlite(_))));
        let panicked = database.write(|connection| -> rusqlite::Result<()> {
            insert(4)(connection)?;
            panic!("a defect")
        });
        assert!(matches!(panicked.await, Err(StoreError::Panicked)));
        database.write(insert(8)).await.unwrap();
        assert_eq!(sum(&database).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_runs_though_its_caller_does_not_wait_and_takes_its_time() {
        let database = Database::open_in_place(&SCHEMA, || Duration::from_secs(1)).unwrap();
        let impatient = tokio::time::timeout(Duration::from_millis(1), database.write(insert(3)));
        impatient.await.unwrap_err();
        assert_eq!(sum(&database).await, 3);
        let begun = tokio::time::Instant::now();
        database.write(insert(4)).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_crash_the_dead_write_no_more_and_what_they_wrote_is_there() {
        let first = Database::open_in_place(&SCHEMA, || Duration::ZERO).unwrap();
        first.write(insert(1)).await.unwrap();
        let second = first.reopened().unwrap();
        assert!(matches!(first.write(insert(2)).await, Err(StoreError::Closed)));
        second.write(insert(4)).await.unwrap();
        assert_eq!(sum(&second).await, 5);
    }
}
