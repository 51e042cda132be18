//! The operator's hand on single mailboxes.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::is_damaged;
use rusqlite::{Connection, OptionalExtension, Row as Columns, params};

use super::collect::{self, Reader};
use super::departures::{Departures, Leaving};
use super::deposit::{self, Row};
use super::{SqliteStore, damage, pack, signed, summary, unsigned};
use crate::{
    Collected, Condition, Custody, Deposit, EntryId, EnvelopeLine, Found, Hold, Imported, LossKind,
    MailboxSummary, Onward, Page, Selection, Share, StoreError,
};

/// Envelopes that one look finds; a reader's work, which nobody waits for.
const LOOK: usize = 500;
/// Envelopes that one write drops: a few milliseconds, in which deposits wait.
const DROP_STEP: usize = 64;

#[async_trait]
impl Custody for SqliteStore {
    async fn hold(&self, recipient: &ServerName) -> Result<Found, StoreError> {
        self.set(recipient, Hold::Held).await
    }

    async fn release(&self, recipient: &ServerName) -> Result<Found, StoreError> {
        self.set(recipient, Hold::Released).await
    }

    async fn drop_mail(
        &self,
        recipient: &ServerName,
        selection: Selection,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let whose = recipient.clone();
        let find = move |connection: &Connection| summary::mailbox(connection, &whose);
        let Some(mailbox) = self.database.read(find).await? else { return Ok(0) };
        let mut dropped = 0;
        for condition in [Condition::Whole, Condition::Quarantined] {
            let mut walk = Walk::of(&mailbox, condition, &selection);
            while let Some(next) = walk {
                let selection = selection.clone();
                let look = move |connection: &_| look(connection, next, &selection);
                let seen = self.database.read(look).await?;
                for step in seen.meant.chunks(DROP_STEP) {
                    let take_out = |step: Vec<(i64, i64)>| {
                        self.make_room(move || {
                            let (recipient, step) = (recipient.clone(), step.clone());
                            move |connection: &_| drop_step(connection, &recipient, &step, now)
                        })
                    };
                    let done = damage::all_or_each(recipient, step, take_out).await?;
                    dropped += done.iter().sum::<u64>();
                }
                walk = seen.next;
            }
        }
        Ok(dropped)
    }

    async fn envelopes(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EnvelopeLine>, StoreError> {
        let recipient = recipient.clone();
        let read = move |connection: &_| lines(connection, &recipient, after, limit);
        Ok(self.database.read(read).await?)
    }

    async fn shares(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<Share>, StoreError> {
        let (recipient, after) = (recipient.clone(), after.cloned());
        let read = move |connection: &_| shares(connection, &recipient, after.as_ref(), limit);
        Ok(self.database.read(read).await?)
    }

    async fn summary(&self, recipient: &ServerName) -> Result<Option<MailboxSummary>, StoreError> {
        let recipient = recipient.clone();
        Ok(self.database.read(move |connection| summary::summary(connection, &recipient)).await?)
    }

    async fn export(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        collect::collect((&self.database, &self.seals), (Reader::Operator, recipient), after, page)
            .await
    }

    async fn import(&self, mail: Vec<Deposit>) -> Result<Imported, StoreError> {
        let bytes = mail.iter().map(Deposit::bytes).sum();
        let reserved = self.reserve_memory(bytes)?;
        let seals = self.seals.clone();
        let rows = move || mail.into_iter().map(|mail| Row::of(mail, &seals)).collect::<Vec<_>>();
        let rows = pack(bytes, rows).await?;
        self.add(move |connection| {
            let imported = deposit::import(connection, &rows, rand::random);
            drop((rows, reserved));
            imported
        })
        .await
    }
}

impl SqliteStore {
    async fn set(&self, recipient: &ServerName, hold: Hold) -> Result<Found, StoreError> {
        let recipient = recipient.clone();
        let held = i64::from(hold == Hold::Held);
        let write = move |connection: &Connection| {
            connection
                .prepare_cached("UPDATE mailboxes SET held = ?2 WHERE recipient = ?1")?
                .execute(params![recipient.as_str(), held])
        };
        match self.database.write(write).await? {
            0 => Ok(Found::NoMailbox),
            _ => Ok(Found::Mailbox),
        }
    }
}

/// Where dropping goes on.
#[derive(Debug, Clone, Copy)]
struct Walk {
    mailbox: i64,
    quarantined: i64,
    after: i64,
    last: i64,
}

struct Seen {
    /// What is to be dropped, by row and id.
    meant: Vec<(i64, i64)>,
    next: Option<Walk>,
}

impl Walk {
    fn of(mailbox: &summary::Mailbox, condition: Condition, selection: &Selection) -> Option<Self> {
        if condition == Condition::Quarantined && mailbox.quarantined == 0 {
            return None;
        }
        let quarantined = quarantined(condition);
        let (after, last) = match selection {
            Selection::All | Selection::Origin(_) => (0, mailbox.last_entry),
            Selection::Envelope(id) => (signed(id.get()) - 1, signed(id.get())),
        };
        Some(Self { mailbox: mailbox.mailbox, quarantined, after, last })
    }
}

fn quarantined(condition: Condition) -> i64 {
    i64::from(condition == Condition::Quarantined)
}

/// The index alone answers this, so that a damaged row can't stop the walk.
pub(super) const WALK: &str = "
    SELECT row, entry FROM envelopes
    WHERE mailbox = ?1 AND quarantined = ?2 AND entry > ?3 AND entry <= ?4
    ORDER BY entry LIMIT ?5";

pub(super) const IS_OF: &str = "SELECT 1 FROM envelopes WHERE row = ?1 AND origin = ?2";

fn look(connection: &Connection, walk: Walk, selection: &Selection) -> rusqlite::Result<Seen> {
    let Walk { mailbox, quarantined, after, last } = walk;
    let range = params![mailbox, quarantined, after, last, signed(LOOK as u64)];
    let mut statement = connection.prepare_cached(WALK)?;
    let mut rows = statement.query(range)?;
    let (mut meant, mut seen, mut last_seen) = (Vec::new(), 0, after);
    while let Some(row) = rows.next()? {
        let (number, entry): (i64, i64) = (row.get(0)?, row.get(1)?);
        let is_meant = match selection {
            Selection::All | Selection::Envelope(_) => true,
            Selection::Origin(origin) => is_of(connection, number, origin)?,
        };
        if is_meant {
            meant.push((number, entry));
        }
        (seen, last_seen) = (seen + 1, entry);
    }
    let is_at_end = seen < LOOK;
    Ok(Seen { meant, next: (!is_at_end).then_some(Walk { after: last_seen, ..walk }) })
}

/// Of a damaged envelope nobody knows whose it is.
fn is_of(connection: &Connection, row: i64, origin: &ServerName) -> rusqlite::Result<bool> {
    match connection.prepare_cached(IS_OF)?.exists(params![row, origin.as_str()]) {
        Err(error) if is_damaged(&error) => Ok(false),
        is_of => is_of,
    }
}

/// By row and by id: the number of a row is given again. The mailbox is looked up anew: its number is given again, too, once
/// it is empty and gone.
pub(super) const DROPPED: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal
    FROM envelopes WHERE row = ?1 AND mailbox = ?2 AND entry = ?3";

fn drop_step(
    connection: &Connection,
    recipient: &ServerName,
    step: &[(i64, i64)],
    now: Timestamp,
) -> rusqlite::Result<u64> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(0) };
    let mut departures = Departures::default();
    let mut dropped = 0;
    for (row, entry) in step {
        let leaving = connection
            .prepare_cached(DROPPED)?
            .query_row(params![row, mailbox.mailbox, entry], Leaving::of)
            .optional()?;
        // Meanwhile it may have been acknowledged, or expired.
        if let Some(leaving) = leaving {
            departures.lose(connection, &leaving)?;
            dropped += 1;
        }
    }
    departures.settle_losses(connection, LossKind::Dropped, now)?;
    Ok(dropped)
}

pub(super) const LINE: &str = "
    SELECT origin, txn_id, deposited_at, expires_at, content_bytes + members_bytes, onward
    FROM envelopes WHERE row = ?1";

fn lines(
    connection: &Connection,
    recipient: &ServerName,
    after: Option<EntryId>,
    limit: usize,
) -> rusqlite::Result<Vec<EnvelopeLine>> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(Vec::new()) };
    let after = after.map_or(0, |id| signed(id.get()));
    let mut lines = Vec::new();
    // The index keeps those set aside apart, so that nobody has to walk past them.
    for condition in [Condition::Whole, Condition::Quarantined] {
        let mut statement = connection.prepare_cached(WALK)?;
        let condition_is = quarantined(condition);
        let range = params![mailbox.mailbox, condition_is, after, i64::MAX, signed(limit as u64)];
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            let Some(id) = EntryId::new(unsigned(row.get(1)?)) else { continue };
            lines.push(line(connection, row.get(0)?, (id, condition))?);
        }
    }
    lines.sort_by_key(|line| line.id);
    lines.truncate(limit);
    Ok(lines)
}

fn line(
    connection: &Connection,
    row: i64,
    (id, condition): (EntryId, Condition),
) -> rusqlite::Result<EnvelopeLine> {
    let line = connection
        .prepare_cached(LINE)?
        .query_row([row], |row| Ok(line_of(row, (id, condition))))
        .optional();
    let unreadable = EnvelopeLine {
        id,
        origin: String::new(),
        txn_id: String::new(),
        deposited_at: Timestamp::EPOCH,
        expires_at: Timestamp::EPOCH,
        bytes: 0,
        condition,
        onward: Onward::No,
    };
    match line {
        Err(error) if is_damaged(&error) => Ok(unreadable),
        line => Ok(line?.unwrap_or(unreadable)),
    }
}

/// What is damaged is shown as it is, so that an operator can find and drop it.
fn line_of(row: &Columns<'_>, (id, condition): (EntryId, Condition)) -> EnvelopeLine {
    let signed = |index| row.get_ref(index).ok()?.as_i64().ok();
    let number = |index| signed(index).map_or(0, unsigned);
    let text = |index| {
        let bytes = row.get_ref(index).ok()?.as_bytes().ok()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    EnvelopeLine {
        id,
        origin: text(0).unwrap_or_default(),
        txn_id: text(1).unwrap_or_default(),
        deposited_at: Timestamp::from_millis(number(2)),
        expires_at: Timestamp::from_millis(number(3)),
        bytes: number(4),
        condition,
        onward: Onward::of(signed(5).unwrap_or(0)),
    }
}

pub(super) const SHARES: &str = "
    SELECT origin, envelopes, bytes FROM shares
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1) AND origin > ?2
    ORDER BY origin LIMIT ?3";

fn shares(
    connection: &Connection,
    recipient: &ServerName,
    after: Option<&ServerName>,
    limit: usize,
) -> rusqlite::Result<Vec<Share>> {
    let after = after.map_or("", ServerName::as_str);
    let mut statement = connection.prepare_cached(SHARES)?;
    let share = |row: &Columns<'_>| {
        Ok(Share {
            origin: summary::server_name(row, 0)?,
            envelopes: unsigned(row.get(1)?),
            bytes: unsigned(row.get(2)?),
        })
    };
    let range = params![recipient.as_str(), after, signed(limit as u64)];
    statement.query_map(range, share)?.collect()
}
