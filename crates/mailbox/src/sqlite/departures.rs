//! Keeps the counters when envelopes leave: of their mailbox, of their origin's share, of their seal, and of the relay.
//!
//! What one write removes is summed up and settled at its end.

use std::collections::BTreeMap;

use restante_federation_proto::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{losses, seals, signed, unsigned};
use crate::LossKind;

/// What the counters know of an envelope. Each value may be damaged, so that none but the first is believed to exist.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) row: i64,
    mailbox: i64,
    quarantined: bool,
    bytes: u64,
    origin: Option<String>,
    seal: i64,
}

impl Leaving {
    /// From the first columns of `row`, which are `row, mailbox, quarantined, content_bytes + members_bytes, origin, seal`.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |index| row.get_ref(index).ok().and_then(|number| number.as_i64().ok());
        Ok(Self {
            row: row.get(0)?,
            mailbox: row.get(1)?,
            quarantined: number(2).unwrap_or(0) != 0,
            bytes: number(3).map_or(0, unsigned),
            origin: row.get(4).ok(),
            seal: number(5).unwrap_or(0),
        })
    }
}

/// Envelopes that leave, by mailbox.
#[derive(Debug, Default)]
pub(super) struct Departures(BTreeMap<i64, Gone>);

#[derive(Debug, Default)]
struct Gone {
    held: Sum,
    shares: BTreeMap<String, Sum>,
    seals: BTreeMap<i64, u64>,
    /// Those that are quarantined from here on, less those that were and leave.
    quarantined: i64,
    lost: BTreeMap<Option<String>, Sum>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    count: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Departures {
    /// It leaves the database.
    pub(super) fn remove(
        &mut self,
        connection: &Connection,
        leaving: &Leaving,
    ) -> rusqlite::Result<()> {
        connection
            .prepare_cached("DELETE FROM envelopes WHERE row = ?1")?
            .execute([leaving.row])?;
        if leaving.quarantined {
            self.0.entry(leaving.mailbox).or_default().quarantined -= 1;
        } else {
            self.count_out(leaving);
        }
        Ok(())
    }

    /// It leaves the database, and its recipient never got it.
    pub(super) fn lose(
        &mut self,
        connection: &Connection,
        leaving: &Leaving,
    ) -> rusqlite::Result<()> {
        self.remove(connection, leaving)?;
        let gone = self.0.entry(leaving.mailbox).or_default();
        gone.lost.entry(leaving.origin.clone()).or_default().add(leaving.bytes);
        Ok(())
    }

    /// It stays and is quarantined.
    pub(super) fn set_aside(&mut self, leaving: &Leaving) {
        self.count_out(leaving);
        self.0.entry(leaving.mailbox).or_default().quarantined += 1;
    }

    fn count_out(&mut self, leaving: &Leaving) {
        let gone = self.0.entry(leaving.mailbox).or_default();
        gone.held.add(leaving.bytes);
        if let Some(origin) = &leaving.origin {
            gone.shares.entry(origin.clone()).or_default().add(leaving.bytes);
        }
        if leaving.seal != 0 {
            *gone.seals.entry(leaving.seal).or_default() += 1;
        }
    }

    /// Brings the counters up to date.
    pub(super) fn settle(self, connection: &Connection) -> rusqlite::Result<()> {
        self.0.iter().try_for_each(|(mailbox, gone)| gone.settle(connection, *mailbox))
    }

    /// The same, counting what was lost.
    pub(super) fn settle_losses(
        self,
        connection: &Connection,
        kind: LossKind,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        for (mailbox, gone) in &self.0 {
            gone.settle(connection, *mailbox)?;
            for (origin, Sum { count, bytes }) in &gone.lost {
                let lost =
                    losses::Lost { kind, origin: origin.as_deref(), count: *count, bytes: *bytes };
                losses::count(connection, *mailbox, &lost, now)?;
            }
        }
        Ok(())
    }
}

impl Gone {
    fn settle(&self, connection: &Connection, mailbox: i64) -> rusqlite::Result<()> {
        let Some(before) = Counters::read(connection, mailbox)? else { return Ok(()) };
        let after = before.without(self);
        connection
            .prepare_cached(
                "UPDATE mailboxes SET envelopes = ?2, bytes = ?3, quarantined = ?4 WHERE mailbox = ?1",
            )?
            .execute(params![mailbox, after.envelopes, after.bytes, after.quarantined])?;
        // By what the mailbox's own counters changed, so that the total stays their sum whatever is damaged.
        connection
            .prepare_cached(
                "UPDATE totals SET envelopes = max(0, envelopes + ?1), bytes = max(0, bytes + ?2),
                     quarantined = max(0, quarantined + ?3)",
            )?
            .execute(params![
                after.envelopes - before.envelopes,
                after.bytes - before.bytes,
                after.quarantined - before.quarantined
            ])?;
        self.settle_shares(connection, mailbox, after.envelopes)?;
        for (seal, count) in &self.seals {
            seals::count(connection, *seal, -signed(*count))?;
        }
        Ok(())
    }

    /// An origin that was damaged in its envelope keeps that envelope's part until the mailbox is empty.
    fn settle_shares(
        &self,
        connection: &Connection,
        mailbox: i64,
        envelopes_left: i64,
    ) -> rusqlite::Result<()> {
        if envelopes_left == 0 {
            for sql in [
                "DELETE FROM shares WHERE mailbox = ?1",
                "DELETE FROM onward_destinations WHERE mailbox = ?1",
            ] {
                connection.prepare_cached(sql)?.execute([mailbox])?;
            }
            return Ok(());
        }
        for (origin, Sum { count, bytes }) in &self.shares {
            let left: Option<i64> = connection
                .prepare_cached(
                    "UPDATE shares SET envelopes = envelopes - ?3, bytes = max(0, bytes - ?4)
                     WHERE mailbox = ?1 AND origin = ?2 RETURNING envelopes",
                )?
                .query_row(params![mailbox, origin, signed(*count), signed(*bytes)], |row| {
                    row.get(0)
                })
                .optional()?;
            if left.is_some_and(|left| left <= 0) {
                connection
                    .prepare_cached("DELETE FROM shares WHERE mailbox = ?1 AND origin = ?2")?
                    .execute(params![mailbox, origin])?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    envelopes: i64,
    bytes: i64,
    quarantined: i64,
}

impl Counters {
    fn read(connection: &Connection, mailbox: i64) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT envelopes, bytes, quarantined FROM mailboxes WHERE mailbox = ?1",
            )?
            .query_row([mailbox], |row| {
                Ok(Self { envelopes: row.get(0)?, bytes: row.get(1)?, quarantined: row.get(2)? })
            })
            .optional()
    }

    /// The size of a damaged envelope may be wrong, so the sum stays above zero, and is right again when the last one
    /// leaves.
    fn without(self, gone: &Gone) -> Self {
        let envelopes = self.envelopes.saturating_sub(signed(gone.held.count)).max(0);
        let bytes = self.bytes.saturating_sub(signed(gone.held.bytes)).max(0);
        Self {
            envelopes,
            bytes: if envelopes == 0 { 0 } else { bytes },
            quarantined: self.quarantined.saturating_add(gone.quarantined).max(0),
        }
    }
}
