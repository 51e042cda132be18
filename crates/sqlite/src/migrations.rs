//! Schemas with versions: a database is brought forward step by step, each step in one transaction.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::OpenError;
use crate::connection::open_error;

/// One step: SQL that brings a database from the version before to this one.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The SQL, several statements.
    pub sql: &'static str,
}

/// All versions of one kind of database; the version number is the count of migrations applied.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// What the database is, for messages: `relay`, `node`.
    pub kind: &'static str,
    /// SQLite's `application_id`, which tells a foreign file; not 0.
    pub application_id: i32,
    /// The steps, oldest first; never edited once released.
    pub migrations: &'static [Migration],
}

impl Schema {
    fn newest(&self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// Refuses what is not ours or too new; changes nothing.
pub(crate) fn check(
    path: &Path,
    connection: &Connection,
    schema: &Schema,
) -> Result<(), OpenError> {
    let foreign = || OpenError::Foreign { path: path.into(), kind: schema.kind };
    let header = read_header(connection).map_err(|source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign(),
        _ => open_error(path, source),
    })?;
    if header.empty {
        return Ok(());
    }
    if header.application_id != schema.application_id {
        return Err(foreign());
    }
    if header.version > schema.newest() {
        return Err(OpenError::Newer {
            path: path.into(),
            found: header.version,
            known: schema.newest(),
        });
    }
    Ok(())
}

/// Applies the steps that are missing. A failed step leaves the version before it.
pub(crate) fn migrate(
    path: &Path,
    connection: &mut Connection,
    schema: &Schema,
) -> Result<(), OpenError> {
    let found = read_header(connection).map_err(|source| open_error(path, source))?.version;
    for (version, migration) in (1u32..).zip(schema.migrations).skip(found as usize) {
        apply(connection, schema, migration, version).map_err(|source| OpenError::Migration {
            path: path.into(),
            version,
            source,
        })?;
    }
    Ok(())
}

fn apply(
    connection: &mut Connection,
    schema: &Schema,
    migration: &Migration,
    version: u32,
) -> rusqlite::Result<()> {
    let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    step.execute_batch(migration.sql)?;
    step.pragma_update(None, "application_id", schema.application_id)?;
    step.pragma_update(None, "user_version", version)?;
    step.commit()
}

struct Header {
    empty: bool,
    application_id: i32,
    version: u32,
}

fn read_header(connection: &Connection) -> rusqlite::Result<Header> {
    let number = |sql| connection.query_row(sql, [], |row| row.get(0));
    let application_id = number("PRAGMA application_id")?;
    let version: i32 = number("PRAGMA user_version")?;
    let objects = number("SELECT count(*) FROM sqlite_schema")?;
    Ok(Header {
        empty: application_id == 0 && version == 0 && objects == 0,
        application_id,
        // A negative version was never ours; as a huge one it is refused as newer.
        version: u32::try_from(version).unwrap_or(u32::MAX),
    })
}
