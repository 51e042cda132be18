//! Which events a destination is known to have.

use std::collections::BTreeSet;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{Database, StoreError};
use rusqlite::{Connection, params};

use super::number;

/// Notes that `destination` has `event_ids`; durable on return. Forgets a few notes from before `forgotten_before`,
/// and the oldest beyond `count_max`.
pub(crate) async fn note(
    database: &Database,
    destination: ServerName,
    event_ids: BTreeSet<String>,
    now: Timestamp,
    limits: Limits,
) -> Result<(), StoreError> {
    database
        .write(move |connection| {
            let sql = "INSERT OR REPLACE INTO passed (destination, event_id, noted_at)
                       VALUES (?1, ?2, ?3)";
            let mut insert = connection.prepare_cached(sql)?;
            let now = number(now.as_millis());
            for event_id in &event_ids {
                insert.execute(params![destination.as_str(), event_id, now])?;
            }
            forget(connection, &limits, event_ids.len())
        })
        .await
}

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Notes from before this time may go.
    pub(crate) forgotten_before: Timestamp,
    /// Notes that are kept at most.
    pub(crate) count_max: u64,
}

fn forget(connection: &Connection, limits: &Limits, added: usize) -> rusqlite::Result<()> {
    // More than came, so that the table shrinks.
    let steps = number(added as u64 + 16);
    let aged = "DELETE FROM passed WHERE id IN
                (SELECT id FROM passed WHERE noted_at < ?1 ORDER BY noted_at LIMIT ?2)";
    let before = number(limits.forgotten_before.as_millis());
    connection.prepare_cached(aged)?.execute(params![before, steps])?;
    // Each note takes the next id, so that ids tell how many there may be without counting.
    let beyond = "DELETE FROM passed WHERE id IN (SELECT id FROM passed
                  WHERE id <= (SELECT max(id) FROM passed) - ?1 ORDER BY id LIMIT ?2)";
    connection.prepare_cached(beyond)?.execute(params![number(limits.count_max), steps]).map(drop)
}

/// Which of `event_ids` `destination` is known to have.
pub(crate) async fn known(
    database: &Database,
    destination: ServerName,
    event_ids: BTreeSet<String>,
) -> Result<BTreeSet<String>, StoreError> {
    database
        .read(move |connection| {
            let sql = "SELECT 1 FROM passed WHERE destination = ?1 AND event_id = ?2";
            let mut exists = connection.prepare_cached(sql)?;
            let mut known = BTreeSet::new();
            for event_id in event_ids {
                if exists.exists(params![destination.as_str(), event_id])? {
                    known.insert(event_id);
                }
            }
            Ok(known)
        })
        .await
}
