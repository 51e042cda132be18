//! The operator's hand on the database as a whole.

use std::path::Path;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use restante_federation_proto::Timestamp;
use rusqlite::{Connection, Row};

use super::{SqliteStore, reseal, signed, unsigned};
use crate::{Backup, BackupError, KeyUse, Resealed, StoreError, Totals, Upkeep};

#[async_trait]
impl Upkeep for SqliteStore {
    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.database.read(totals).await?)
    }

    async fn backup(&self, path: &Path) -> Result<Backup, BackupError> {
        let bytes = self.database.backup(path).await?;
        Ok(Backup { bytes })
    }

    async fn reseal(&self, batch_max: usize) -> Result<Resealed, StoreError> {
        if self.seals.are_unused() {
            return Ok(Resealed::default());
        }
        let (seals, after) = (self.seals.clone(), self.resealed_row.load(Ordering::Relaxed));
        let find = move |connection: &_| reseal::find(connection, &seals, after, batch_max);
        let found = self.database.read(find).await?;
        let last_row = if found.looked_at == 0 { 0 } else { found.last_row };
        let done = if found.changes.is_empty() {
            Resealed { looked_at: found.looked_at, ..Resealed::default() }
        } else {
            self.put_resealed(found).await?
        };
        // After the write: what failed gets another turn.
        self.resealed_row.store(last_row, Ordering::Relaxed);
        Ok(done)
    }

    async fn expired_to(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.database.read(expired_to).await?)
    }

    async fn note_expired_to(&self, time: Timestamp) -> Result<(), StoreError> {
        let time = signed(time.as_millis());
        let note = move |connection: &Connection| {
            connection.prepare_cached("UPDATE health SET expired_to = ?1")?.execute([time])
        };
        self.database.write(note).await?;
        Ok(())
    }
}

fn expired_to(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let time = |row: &Row<'_>| {
        Ok(row.get::<_, Option<i64>>(0)?.map(|time| Timestamp::from_millis(unsigned(time))))
    };
    connection.prepare_cached("SELECT expired_to FROM health")?.query_row([], time)
}

impl SqliteStore {
    async fn put_resealed(&self, found: reseal::Found) -> Result<Resealed, StoreError> {
        let reserve = self.reserve.clone();
        let together = found.clone();
        let put = move |connection: &Connection| match reserve.admits(connection)? {
            true => reseal::put(connection, &together).map(Some),
            false => Ok(None),
        };
        match self.database.write(put).await {
            Err(error) if error.is_damage() => {
                Ok(reseal::put_one_by_one(&self.database, found).await?)
            }
            put => put?.ok_or(StoreError::DiskFull),
        }
    }
}

fn totals(connection: &Connection) -> rusqlite::Result<Totals> {
    let keys = keys(connection)?;
    let sql = "SELECT mailboxes, registrations, envelopes, bytes, quarantined, onward_mailboxes
               FROM totals";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let number = |index| row.get(index).map(unsigned);
        Ok(Totals {
            mailboxes: number(0)?,
            onward_mailboxes: number(5)?,
            registrations: number(1)?,
            envelopes: number(2)?,
            bytes: number(3)?,
            quarantined: number(4)?,
            keys,
        })
    })
}

fn keys(connection: &Connection) -> rusqlite::Result<Vec<KeyUse>> {
    let key_use = |row: &Row<'_>| Ok(KeyUse { id: row.get(0)?, envelopes: unsigned(row.get(1)?) });
    let sql = "SELECT key, envelopes FROM seals ORDER BY seal";
    connection.prepare_cached(sql)?.query_map([], key_use)?.collect()
}

impl From<restante_sqlite::BackupError> for BackupError {
    fn from(error: restante_sqlite::BackupError) -> Self {
        match error {
            restante_sqlite::BackupError::Exists { path } => Self::Exists { path },
            restante_sqlite::BackupError::Unwritable { path, source } => {
                Self::Unwritable { path, source }
            }
            restante_sqlite::BackupError::UnderWay => Self::UnderWay,
            restante_sqlite::BackupError::InMemory => Self::InMemory,
        }
    }
}
