//! The keys in use: which number stands for which key in the database, and which one seals.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use restante_sqlite::OpenError;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::unsigned;
use crate::at_rest::{KeyError, Keys, Material, SealingKey};

/// Stands for no key.
pub(super) const PLAIN: i64 = 0;

/// The keys by their numbers.
#[derive(Debug)]
pub(super) struct Seals {
    /// The number of the key that seals.
    current: i64,
    keys: BTreeMap<i64, SealingKey>,
}

impl Seals {
    /// The keys of the key file, with the numbers that they have here; the first gets one. Refuses to go without a key
    /// that is needed, or with another one of its name.
    pub(super) fn take(
        path: &Path,
        connection: &Connection,
        keys: &Keys,
    ) -> Result<Self, OpenError> {
        let unusable =
            |source: KeyError| OpenError::Unusable { path: path.into(), source: source.into() };
        let broken = |source| OpenError::of_sqlite(path, source);
        for (id, envelopes) in in_use(connection).map_err(broken)? {
            if !keys.all().iter().any(|(known, _)| *known == id) {
                return Err(unusable(KeyError::Missing { id, envelopes }));
            }
        }
        let mut seals = Self { current: PLAIN, keys: BTreeMap::new() };
        for (id, material) in keys.all() {
            let Material::Known(key) = material else { continue };
            let is_current = keys.sealing().is_some_and(|(sealing, _)| sealing == id);
            let number = match find(connection, id).map_err(broken)? {
                Some((number, proof)) if proof[..] == key.proof() => number,
                Some(_) => return Err(unusable(KeyError::Another { id: id.clone() })),
                None if is_current => add(connection, id, key).map_err(broken)?,
                None => continue,
            };
            seals.keys.insert(number, key.clone());
            if is_current {
                seals.current = number;
            }
        }
        Ok(seals)
    }

    pub(super) fn current(&self) -> i64 {
        self.current
    }

    /// Whether nothing was ever sealed and nothing is to be.
    pub(super) fn are_unused(&self) -> bool {
        self.current == PLAIN && self.keys.is_empty()
    }

    /// The bytes as they are stored, and the number of the key that sealed them.
    pub(super) fn seal(&self, body: &[u8], about: &[u8]) -> Option<(i64, Vec<u8>)> {
        let key = self.keys.get(&self.current)?;
        Some((self.current, key.seal(body, about, rand::random())))
    }

    /// The bytes that were sealed with the key of that number.
    pub(super) fn open<'a>(
        &self,
        seal: i64,
        sealed: &'a [u8],
        about: &[u8],
    ) -> Option<Cow<'a, [u8]>> {
        match seal {
            PLAIN => Some(Cow::Borrowed(sealed)),
            seal => self.keys.get(&seal)?.open(sealed, about).map(Cow::Owned),
        }
    }
}

fn in_use(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    let sql = "SELECT key, envelopes FROM seals WHERE envelopes > 0 ORDER BY seal";
    let key = |row: &Row<'_>| Ok((row.get(0)?, unsigned(row.get(1)?)));
    connection.prepare(sql)?.query_map([], key)?.collect()
}

fn find(connection: &Connection, id: &str) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let key = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    connection.query_row("SELECT seal, proof FROM seals WHERE key = ?1", [id], key).optional()
}

fn add(connection: &Connection, id: &str, key: &SealingKey) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO seals (key, proof, envelopes) VALUES (?1, ?2, 0)";
    connection.execute(sql, params![id, key.proof()])?;
    Ok(connection.last_insert_rowid())
}

/// Counts envelopes that a key seals, or seals no longer.
pub(super) fn count(connection: &Connection, seal: i64, change: i64) -> rusqlite::Result<()> {
    if seal == PLAIN {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE seals SET envelopes = max(0, envelopes + ?2) WHERE seal = ?1")?
        .execute(params![seal, change])
        .map(drop)
}
