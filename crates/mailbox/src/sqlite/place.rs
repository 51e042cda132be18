//! Where an envelope goes: its mailbox, which may have to be made, and what stands there already.

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, named_params, params};

use super::deposit::Row;
use super::{onward, seals, signed, spent, unsigned};
use crate::rules::{Berth, Held, Load};
use crate::{EntryId, Onward, Quotas};

/// Where a row goes, and what stands there already.
pub(super) struct Place {
    pub(super) mailbox: Option<Mailbox>,
    pub(super) held: Held,
}

#[derive(Clone, Copy)]
pub(super) struct Mailbox {
    pub(super) mailbox: i64,
    last_entry: Option<EntryId>,
}

pub(super) const FIND: &str = "
    SELECT totals.envelopes, totals.bytes, mailboxes.envelopes, mailboxes.bytes,
        shares.envelopes, shares.bytes, mailboxes.mailbox, mailboxes.last_entry,
        mailboxes.for_onward, totals.mailboxes, totals.onward_mailboxes
    FROM totals
    LEFT JOIN mailboxes ON mailboxes.recipient = ?1
    LEFT JOIN shares ON shares.mailbox = mailboxes.mailbox AND shares.origin = ?2
    WHERE totals.one = 1";

impl Place {
    pub(super) fn find(
        connection: &Connection,
        row: &Row,
        quotas: Quotas,
    ) -> rusqlite::Result<Self> {
        let (mut place, onward_mailboxes) = connection
            .prepare_cached(FIND)?
            .query_row(params![row.recipient.as_str(), row.origin.as_str()], |found| {
                Ok((Self::of(found, row.onward)?, unsigned(found.get(10)?)))
            })?;
        if row.onward != Onward::No {
            let mailbox = place.mailbox.map(|found| found.mailbox);
            let max = quotas.onward.destinations_max;
            place.held.onward = onward::held(connection, row.origin.as_str(), (mailbox, max))?;
        }
        if place.held.berth == Berth::OneMoreOnward(onward_mailboxes)
            && onward_mailboxes >= quotas.onward.mailboxes_max
            && spent::is_any(connection)?
        {
            place.held.berth = Berth::InsteadOfAnother;
        }
        Ok(place)
    }

    fn of(found: &rusqlite::Row<'_>, onward: Onward) -> rusqlite::Result<Self> {
        let number = |index| -> rusqlite::Result<u64> {
            Ok(found.get::<_, Option<i64>>(index)?.map_or(0, unsigned))
        };
        let load = |envelopes, bytes| -> rusqlite::Result<Load> {
            Ok(Load { envelopes: number(envelopes)?, bytes: number(bytes)? })
        };
        let last_entry = EntryId::new(number(7)?);
        let mailbox: Option<i64> = found.get(6)?;
        let is_for_onward = mailbox.is_none() || number(8)? != 0;
        let berth = match onward {
            Onward::No if is_for_onward => Berth::OneMore(number(9)?.saturating_sub(number(10)?)),
            Onward::Wanted | Onward::Refused if mailbox.is_none() => {
                Berth::OneMoreOnward(number(10)?)
            }
            Onward::No | Onward::Wanted | Onward::Refused => Berth::There,
        };
        Ok(Self {
            held: Held {
                relay: load(0, 1)?,
                mailbox: load(2, 3)?,
                origin: load(4, 5)?,
                berth,
                ..Held::default()
            },
            mailbox: mailbox.map(|mailbox| Mailbox { mailbox, last_entry }),
        })
    }

    /// Appends the row, unless no id is left.
    pub(super) fn store(
        &self,
        connection: &Connection,
        row: &Row,
        random: u64,
    ) -> rusqlite::Result<Option<EntryId>> {
        if self.held.berth == Berth::InsteadOfAnother {
            spent::give_up(connection)?;
        }
        let mailbox = match self.mailbox {
            Some(mailbox) => mailbox,
            None => create(connection, &row.recipient, row.onward, (random, row.deposited_at))?,
        };
        let Some(entry) = mailbox.last_entry.and_then(EntryId::next) else { return Ok(None) };
        if matches!(self.held.berth, Berth::OneMore(_)) {
            spent::keep(connection, mailbox.mailbox)?;
        }
        append(connection, mailbox.mailbox, entry, row)?;
        count_in(connection, mailbox.mailbox, entry, row)?;
        Ok(Some(entry))
    }
}

/// An empty mailbox whose first id `random` draws; whether nothing but mail to be delivered onward is to lie there, `onward` says.
fn create(
    connection: &Connection,
    recipient: &ServerName,
    onward: Onward,
    (random, used_at): (u64, i64),
) -> rusqlite::Result<Mailbox> {
    let before_first = EntryId::first(random);
    connection
        .prepare_cached(
            "INSERT INTO mailboxes (recipient, last_entry, used_at, for_onward)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            recipient.as_str(),
            signed(before_first.get()),
            used_at.max(1),
            i64::from(onward != Onward::No)
        ])?;
    let mailbox = connection.last_insert_rowid();
    connection.prepare_cached("UPDATE totals SET mailboxes = mailboxes + 1")?.execute([])?;
    Ok(Mailbox { mailbox, last_entry: Some(before_first) })
}

/// The number of the mailbox of `recipient`, which registers; it is created at `now` if there is none.
pub(super) fn mailbox_of(
    connection: &Connection,
    recipient: &ServerName,
    random: u64,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    match super::summary::mailbox(connection, recipient)? {
        Some(mailbox) => {
            spent::keep(connection, mailbox.mailbox)?;
            Ok(mailbox.mailbox)
        }
        None => {
            let drawn = (random, signed(now.as_millis()));
            Ok(create(connection, recipient, Onward::No, drawn)?.mailbox)
        }
    }
}

fn append(
    connection: &Connection,
    mailbox: i64,
    entry: EntryId,
    row: &Row,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO envelopes (mailbox, entry, duplicate_key, deposited_at, expires_at, origin,
                 txn_id, content_hash, content_bytes, members_bytes, coding, seal, checksum, body,
                 onward)
             VALUES (:mailbox, :entry, :duplicate_key, :deposited_at, :expires_at, :origin,
                 :txn_id, :content_hash, :content_bytes, :members_bytes, :coding, :seal, :checksum,
                 :body, :onward)",
        )?
        .execute(named_params! {
            ":mailbox": mailbox,
            ":entry": signed(entry.get()),
            ":duplicate_key": row.duplicate_key.0,
            ":deposited_at": row.deposited_at,
            ":expires_at": row.expires_at,
            ":origin": row.origin.as_str(),
            ":txn_id": row.txn_id,
            ":content_hash": row.content_hash,
            ":content_bytes": row.content_bytes,
            ":members_bytes": row.members_bytes,
            ":coding": row.body.coding as i64,
            ":seal": row.seal,
            ":checksum": row.checksum,
            ":body": &row.body.bytes[..],
            ":onward": row.onward as i64,
        })
        .map(drop)
}

/// Counts the row in its mailbox, its origin's share and the total.
fn count_in(
    connection: &Connection,
    mailbox: i64,
    entry: EntryId,
    row: &Row,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE mailboxes SET last_entry = ?2, envelopes = envelopes + 1, bytes = bytes + ?3,
                 used_at = max(used_at, ?4)
             WHERE mailbox = ?1",
        )?
        .execute(params![mailbox, signed(entry.get()), row.bytes(), row.deposited_at])?;
    connection
        .prepare_cached(
            "INSERT INTO shares (mailbox, origin, envelopes, bytes) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT DO UPDATE SET envelopes = envelopes + 1, bytes = bytes + excluded.bytes",
        )?
        .execute(params![mailbox, row.origin.as_str(), row.bytes()])?;
    connection
        .prepare_cached("UPDATE totals SET envelopes = envelopes + 1, bytes = bytes + ?1")?
        .execute([row.bytes()])?;
    seals::count(connection, row.seal, 1)
}
