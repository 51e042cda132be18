//! Removing what is past its time, first come, in steps of the caller's size.

use std::time::Duration;

use restante_sqlite::{Database, StoreError, despite_others};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::departures::{Departures, Leaving};
use super::{signed, unsigned};
use crate::envelope::is_of_the_moment;
use crate::{Due, Expired, HOLD_GRACE, LossKind};

pub(super) const FORGET: &str = "
    DELETE FROM acknowledged WHERE duplicate_key IN (
        SELECT duplicate_key FROM acknowledged WHERE deposited_at < ?1
        ORDER BY deposited_at LIMIT ?2)";

pub(super) const DUE: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal,
        (SELECT held FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox),
        expires_at - deposited_at
    FROM envelopes WHERE expires_at < ?1 ORDER BY expires_at, row LIMIT ?2";

/// One step. The key of an expired envelope goes with it.
pub(super) fn expire(
    connection: &Connection,
    due: Due,
    batch_max: usize,
) -> rusqlite::Result<Expired> {
    let mut expired =
        Expired { remembered: forget(connection, due, batch_max)?, ..Expired::default() };
    let mut departures = Departures::default();
    for envelope in envelopes_due(connection, due, batch_max)? {
        envelope.pass(connection, due, &mut departures, &mut expired)?;
    }
    departures.settle_losses(connection, LossKind::Expired, due.now)?;
    Ok(expired)
}

fn forget(connection: &Connection, due: Due, batch_max: usize) -> rusqlite::Result<u64> {
    let before = signed(due.remembered_from.as_millis());
    let batch_max = signed(batch_max as u64);
    let forgotten = connection.prepare_cached(FORGET)?.execute(params![before, batch_max])?;
    Ok(forgotten as u64)
}

/// The same, each envelope in a commit of its own: what lies on damaged pages can't even be read or removed, and takes all else
/// of its commit with it. It stays, and the rest goes.
pub(super) async fn expire_one_by_one(
    database: &Database,
    due: Due,
    batch_max: usize,
) -> Result<Expired, StoreError> {
    let mut expired = Expired::default();
    let mut after = After::default();
    // What stays must not hide what lies behind it.
    while expired.envelopes == 0 && expired.prolonged == 0 {
        let page =
            database.read(move |connection| page_due(connection, due, after, batch_max)).await?;
        let Some(last) = page.last() else { break };
        after = *last;
        for After { row, .. } in page {
            let alone = move |connection: &Connection| pass_one(connection, row, due);
            // What another write's damage kept here has its turn in the next step, and each attempt at what is damaged costs others theirs.
            match database.write(alone).await {
                Ok(one) => {
                    expired.envelopes += one.envelopes;
                    expired.of_the_moment += one.of_the_moment;
                    expired.prolonged += one.prolonged;
                }
                Err(error) if error.is_damage() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        row,
                        error,
                        "a damaged envelope past its time can't be removed; check the disk"
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }
    let forget = move |connection: &Connection| forget(connection, due, batch_max);
    expired.remembered = match despite_others(|| database.write(forget)).await {
        Err(error) if error.is_damage() => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "names of mail that was acknowledged can't be forgotten; check the disk"
            );
            0
        }
        forgotten => forgotten?,
    };
    Ok(expired)
}

/// Where the walk through what is due goes on.
#[derive(Debug, Clone, Copy, Default)]
struct After {
    expires_at: i64,
    row: i64,
}

/// The index alone answers this, so that a damaged row can't stop the walk.
pub(super) const PAGE_DUE: &str = "
    SELECT expires_at, row FROM envelopes
    WHERE expires_at < ?1 AND (expires_at, row) > (?2, ?3) ORDER BY expires_at, row LIMIT ?4";

fn page_due(
    connection: &Connection,
    due: Due,
    after: After,
    batch_max: usize,
) -> rusqlite::Result<Vec<After>> {
    let before = signed(due.now.as_millis());
    let page = params![before, after.expires_at, after.row, signed(batch_max as u64)];
    let at = |row: &Row<'_>| Ok(After { expires_at: row.get(0)?, row: row.get(1)? });
    connection.prepare_cached(PAGE_DUE)?.query_map(page, at)?.collect()
}

/// Since it was found it may have been acknowledged, and the number of the last row is given again to the next envelope.
pub(super) const ONE_DUE: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal,
        (SELECT held FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox),
        expires_at - deposited_at
    FROM envelopes WHERE row = ?1 AND expires_at < ?2";

fn pass_one(connection: &Connection, row: i64, due: Due) -> rusqlite::Result<Expired> {
    let (mut departures, mut expired) = (Departures::default(), Expired::default());
    let before = signed(due.now.as_millis());
    let envelope = connection
        .prepare_cached(ONE_DUE)?
        .query_row(params![row, before], PastItsTime::of)
        .optional()?;
    if let Some(envelope) = envelope {
        envelope.pass(connection, due, &mut departures, &mut expired)?;
        departures.settle_losses(connection, LossKind::Expired, due.now)?;
    }
    Ok(expired)
}

struct PastItsTime {
    leaving: Leaving,
    is_held: bool,
    is_of_the_moment: bool,
}

fn envelopes_due(
    connection: &Connection,
    due: Due,
    batch_max: usize,
) -> rusqlite::Result<Vec<PastItsTime>> {
    let mut statement = connection.prepare_cached(DUE)?;
    let before = signed(due.now.as_millis());
    statement.query_map(params![before, signed(batch_max as u64)], PastItsTime::of)?.collect()
}

impl PastItsTime {
    /// From the columns of [`DUE`].
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let kept = row.get(7).map(|millis| Duration::from_millis(unsigned(millis)));
        Ok(Self {
            leaving: Leaving::of(row)?,
            is_held: row.get(6).unwrap_or(0) != 0,
            is_of_the_moment: kept.is_ok_and(is_of_the_moment),
        })
    }

    fn pass(
        &self,
        connection: &Connection,
        due: Due,
        departures: &mut Departures,
        expired: &mut Expired,
    ) -> rusqlite::Result<()> {
        if !self.is_held {
            expired.envelopes += 1;
            if self.is_of_the_moment {
                expired.of_the_moment += 1;
                return departures.remove(connection, &self.leaving);
            }
            return departures.lose(connection, &self.leaving);
        }
        expired.prolonged += 1;
        let later = signed(due.now.after(HOLD_GRACE).as_millis());
        connection
            .prepare_cached("UPDATE envelopes SET expires_at = ?2 WHERE row = ?1")?
            .execute(params![self.leaving.row, later])?;
        Ok(())
    }
}
