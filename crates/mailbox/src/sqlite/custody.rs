//! The operator's hand on single mailboxes.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, Row as Columns, params};

use super::collect::{self, Reader};
use super::departures::{Departures, Leaving};
use super::deposit::{self, Row};
use super::{SqliteStore, pack, signed, summary, unsigned};
use crate::{
    Collected, Condition, Custody, Deposit, EntryId, EnvelopeLine, Found, Hold, Imported, LossKind,
    MailboxSummary, Page, Selection, Share, StoreError,
};

/// Envelopes that one step of dropping looks at, so that deposits get their turn between steps.
const DROP_STEP: usize = 500;

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
                let step = || {
                    let selection = selection.clone();
                    move |connection: &_| drop_step(connection, next, &selection, now)
                };
                let done = self.make_room(step).await?;
                dropped += done.dropped;
                walk = done.next;
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

struct Step {
    dropped: u64,
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

pub(super) const WALK: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, entry
    FROM envelopes
    WHERE mailbox = ?1 AND quarantined = ?2 AND entry > ?3 AND entry <= ?4
    ORDER BY entry LIMIT ?5";

fn drop_step(
    connection: &Connection,
    walk: Walk,
    selection: &Selection,
    now: Timestamp,
) -> rusqlite::Result<Step> {
    let Walk { mailbox, quarantined, after, last } = walk;
    let range = params![mailbox, quarantined, after, last, signed(DROP_STEP as u64)];
    let mut statement = connection.prepare_cached(WALK)?;
    let found = statement.query_map(range, |row| Ok((Leaving::of(row)?, row.get(6)?)))?;
    let found: Vec<(Leaving, i64)> = found.collect::<rusqlite::Result<_>>()?;
    let mut departures = Departures::default();
    let mut dropped = 0;
    for (leaving, _) in &found {
        let is_meant = match selection {
            Selection::All | Selection::Envelope(_) => true,
            Selection::Origin(origin) => leaving.is_from(origin.as_str()),
        };
        if is_meant {
            departures.lose(connection, leaving)?;
            dropped += 1;
        }
    }
    departures.settle_losses(connection, LossKind::Dropped, now)?;
    let is_at_end = found.len() < DROP_STEP;
    let next = found.last().filter(|_| !is_at_end).map(|(_, entry)| Walk { after: *entry, ..walk });
    Ok(Step { dropped, next })
}

pub(super) const LINES: &str = "
    SELECT entry, origin, txn_id, deposited_at, expires_at, content_bytes + members_bytes
    FROM envelopes WHERE mailbox = ?1 AND quarantined = ?2 AND entry > ?3 ORDER BY entry LIMIT ?4";

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
        let mut statement = connection.prepare_cached(LINES)?;
        let range = params![mailbox.mailbox, quarantined(condition), after, signed(limit as u64)];
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            lines.extend(line_of(row, condition));
        }
    }
    lines.sort_by_key(|line| line.id);
    lines.truncate(limit);
    Ok(lines)
}

/// What is damaged is shown as it is, so that an operator can find and drop it.
fn line_of(row: &Columns<'_>, condition: Condition) -> Option<EnvelopeLine> {
    let number = |index| row.get_ref(index).ok()?.as_i64().ok().map(unsigned);
    let text = |index| {
        let bytes = row.get_ref(index).ok()?.as_bytes().ok()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    Some(EnvelopeLine {
        id: EntryId::new(number(0)?)?,
        origin: text(1).unwrap_or_default(),
        txn_id: text(2).unwrap_or_default(),
        deposited_at: Timestamp::from_millis(number(3).unwrap_or(0)),
        expires_at: Timestamp::from_millis(number(4).unwrap_or(0)),
        bytes: number(5).unwrap_or(0),
        condition,
    })
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
