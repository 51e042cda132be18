//! Removing what its owner has.

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::departures::{Departures, Leaving};
use super::{SqliteStore, damage, signed, summary};
use crate::{Acknowledged, Acknowledgement};

/// Removes the named envelopes of this one mailbox, and remembers their duplicate keys.
pub(super) async fn acknowledge(
    store: &SqliteStore,
    recipient: &ServerName,
    acknowledgements: &[Acknowledgement],
) -> Result<Acknowledged, StoreError> {
    let take_out = |acknowledgements: Vec<Acknowledgement>| {
        store.make_room(move || {
            let (recipient, acknowledgements) = (recipient.clone(), acknowledgements.clone());
            move |connection: &Connection| remove(connection, &recipient, &acknowledgements)
        })
    };
    let done = damage::all_or_each(recipient, acknowledgements, take_out).await?;
    Ok(Acknowledged { removed: done.iter().map(|done| done.removed).sum() })
}

fn remove(
    connection: &Connection,
    recipient: &ServerName,
    acknowledgements: &[Acknowledgement],
) -> rusqlite::Result<Acknowledged> {
    let mut acknowledged = Acknowledged::default();
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(acknowledged) };
    let mailbox = mailbox.mailbox;
    let mut departures = Departures::default();
    for acknowledgement in acknowledgements {
        let Some(held) = find(connection, mailbox, *acknowledgement)? else { continue };
        remember(connection, &held)?;
        departures.remove(connection, &held.leaving)?;
        acknowledged.removed += 1;
    }
    departures.settle(connection)?;
    count(connection, mailbox, acknowledged)?;
    Ok(acknowledged)
}

/// Counts in the mailbox what its owner acknowledged.
pub(super) fn count(
    connection: &Connection,
    mailbox: i64,
    acknowledged: Acknowledged,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE mailboxes SET acknowledged_total = acknowledged_total + ?2 WHERE mailbox = ?1",
        )?
        .execute(params![mailbox, signed(acknowledged.removed)])
        .map(drop)
}

/// An envelope that is there.
pub(super) struct Held {
    pub(super) leaving: Leaving,
    duplicate_key: Option<Vec<u8>>,
    deposited_at: i64,
}

impl Held {
    /// From a row whose columns are those of [`Leaving::of`], `duplicate_key` and `deposited_at`.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            leaving: Leaving::of(row)?,
            duplicate_key: row.get(6)?,
            deposited_at: row.get(7)?,
        })
    }
}

pub(super) const FIND: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, duplicate_key,
        deposited_at
    FROM envelopes
    WHERE mailbox = ?1 AND quarantined IN (0, 1) AND entry = ?2
        AND (?3 IS NULL OR content_hash = ?3)";

fn find(
    connection: &Connection,
    mailbox: i64,
    acknowledgement: Acknowledgement,
) -> rusqlite::Result<Option<Held>> {
    let id = signed(acknowledgement.id.get());
    let content_hash = acknowledgement.content_hash.map(|hash| hash.0);
    connection
        .prepare_cached(FIND)?
        .query_row(params![mailbox, id, content_hash], Held::of)
        .optional()
}

/// A quarantined envelope has no key to remember: whether it was that mail is not known.
pub(super) fn remember(connection: &Connection, held: &Held) -> rusqlite::Result<()> {
    let Some(key) = &held.duplicate_key else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO acknowledged (duplicate_key, deposited_at) VALUES (?1, ?2)",
        )?
        .execute(params![key, held.deposited_at])?;
    Ok(())
}
