//! Leaving an envelope.

use std::sync::Mutex;

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::body::{self, Body, Stored};
use super::departures::{Departures, Leaving};
use super::seals::{self, Seals};
use super::{losses, names, onward, signed, summary, unsigned};
use crate::ahead::Ahead;
use crate::duplicate::{AheadKey, DuplicateKey};
use crate::rules::{Held, Load};
use crate::{Deposit, Deposited, EntryId, Full, Imported, Known, LossKind, Onward, Quotas};

/// All that is written for an envelope, made ready before the writer's turn.
#[derive(Debug)]
pub(super) struct Row {
    recipient: ServerName,
    origin: ServerName,
    txn_id: String,
    content_hash: [u8; 32],
    duplicate_key: DuplicateKey,
    ahead_key: AheadKey,
    deposited_at: i64,
    expires_at: i64,
    content_bytes: i64,
    members_bytes: i64,
    body: Body,
    seal: i64,
    checksum: [u8; 32],
    onward: Onward,
}

impl Row {
    pub(super) fn of(deposit: Deposit, seals: &Seals) -> Self {
        let duplicate_key = DuplicateKey::of(&deposit);
        let mut row = Self {
            duplicate_key,
            ahead_key: duplicate_key.ahead_of(&deposit.recipient),
            body: body::pack(&deposit),
            content_bytes: signed(deposit.content.len() as u64),
            members_bytes: signed(deposit.members.len() as u64),
            deposited_at: signed(deposit.deposited_at.as_millis()),
            expires_at: signed(deposit.expires_at.as_millis()),
            content_hash: deposit.content_hash.0,
            recipient: deposit.recipient,
            origin: deposit.origin,
            txn_id: deposit.txn_id,
            seal: seals::PLAIN,
            checksum: [0; 32],
            onward: deposit.onward,
        };
        let about = row.stored().about(&row.recipient);
        if let Some((seal, sealed)) = seals.seal(&row.body.bytes, &about) {
            row.seal = seal;
            row.body.bytes = sealed.into();
        }
        row.checksum = row.stored().checksum(&row.recipient);
        row
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            origin: self.origin.as_str().as_bytes(),
            txn_id: self.txn_id.as_bytes(),
            content_hash: &self.content_hash,
            deposited_at: self.deposited_at,
            expires_at: self.expires_at,
            content_bytes: self.content_bytes,
            members_bytes: self.members_bytes,
            coding: self.body.coding as i64,
            seal: self.seal,
            body: &self.body.bytes,
            onward: self.onward as i64,
        }
    }

    fn bytes(&self) -> i64 {
        self.content_bytes + self.members_bytes
    }
}

/// Stores the row in its mailbox, which `random` gives its first id if there is none. `ahead` has what its recipient has from
/// elsewhere.
pub(super) fn deposit(
    connection: &Connection,
    row: &Row,
    quotas: Quotas,
    (ahead, random): (&Mutex<Ahead>, u64),
) -> rusqlite::Result<Deposited> {
    let known = known(connection, row, ahead)?;
    if let Some(known) = known
        && row.onward == Onward::No
    {
        return Ok(Deposited::Duplicate(known));
    }
    let mut place = Place::find(connection, row)?;
    if row.onward != Onward::No {
        place.held.onward = onward::load(connection, row.origin.as_str())?;
    }
    if let Some(known) = known {
        if quotas.has_room_onward(place.held, unsigned(row.bytes())) {
            onward::mark(connection, row.duplicate_key)?;
        }
        return Ok(Deposited::Duplicate(known));
    }
    if let Some(full) = quotas.full(place.held, unsigned(row.bytes())) {
        return turn_away(connection, &place, row, full);
    }
    match place.store(connection, row, random)? {
        Some(entry) => Ok(Deposited::Stored(entry)),
        None => turn_away(connection, &place, row, Full::Mailbox),
    }
}

fn turn_away(
    connection: &Connection,
    place: &Place,
    row: &Row,
    full: Full,
) -> rusqlite::Result<Deposited> {
    if let Some(mailbox) = &place.mailbox {
        let lost = losses::Lost {
            kind: full.into(),
            origin: Some(row.origin.as_str()),
            count: 1,
            bytes: unsigned(row.bytes()),
        };
        let now = Timestamp::from_millis(unsigned(row.deposited_at));
        losses::count(connection, mailbox.mailbox, &lost, now)?;
    }
    Ok(Deposited::Full(full))
}

/// Stores the rows in their mailboxes, whatever those hold.
pub(super) fn import(
    connection: &Connection,
    rows: &[Row],
    mut random: impl FnMut() -> u64,
) -> rusqlite::Result<Imported> {
    let mut imported = Imported::default();
    for row in rows {
        if is_known(connection, row.duplicate_key)? {
            imported.duplicates += 1;
            continue;
        }
        let stored = Place::find(connection, row)?.store(connection, row, random())?;
        stored.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, i64::MAX))?;
        imported.imported += 1;
    }
    Ok(imported)
}

pub(super) const KNOWN: &str = "
    SELECT 1 FROM envelopes WHERE duplicate_key = ?1
    UNION ALL SELECT 1 FROM acknowledged WHERE duplicate_key = ?1";

/// Whether mail of that key is held or was acknowledged.
fn is_known(connection: &Connection, key: DuplicateKey) -> rusqlite::Result<bool> {
    connection.prepare_cached(KNOWN)?.exists([key.0])
}

pub(super) const ACKNOWLEDGED: &str = "SELECT 1 FROM acknowledged WHERE duplicate_key = ?1";

/// Whether mail of that key was acknowledged.
pub(super) fn is_acknowledged(
    connection: &Connection,
    key: DuplicateKey,
) -> rusqlite::Result<bool> {
    connection.prepare_cached(ACKNOWLEDGED)?.exists([key.0])
}

/// What is known of mail that is left, once it has expired if it is past its time.
fn known(
    connection: &Connection,
    row: &Row,
    ahead: &Mutex<Ahead>,
) -> rusqlite::Result<Option<Known>> {
    let now = Timestamp::from_millis(unsigned(row.deposited_at));
    if let Some(standing) = Standing::find(connection, row.duplicate_key)? {
        if standing.is_held || standing.until >= now {
            let Standing { since, until, .. } = standing;
            return Ok(Some(Known::Held { since, until }));
        }
        let mut departures = Departures::default();
        departures.lose(connection, &standing.leaving)?;
        departures.settle_losses(connection, LossKind::Expired, now)?;
        return Ok(None);
    }
    if is_acknowledged(connection, row.duplicate_key)? {
        return Ok(Some(Known::Acknowledged));
    }
    // If this is undone, the name is forgotten all the same: that costs a download.
    if !names(ahead).meet(&row.ahead_key, now) {
        return Ok(None);
    }
    connection
        .prepare_cached("INSERT INTO acknowledged (duplicate_key, deposited_at) VALUES (?1, ?2)")?
        .execute(params![row.duplicate_key.0, row.deposited_at])?;
    Ok(Some(Known::Acknowledged))
}

/// An envelope that stands where the same is left again.
struct Standing {
    leaving: Leaving,
    since: Timestamp,
    until: Timestamp,
    is_held: bool,
}

pub(super) const STANDING: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal,
        deposited_at, expires_at, EXISTS (
            SELECT 1 FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox AND held <> 0)
    FROM envelopes WHERE duplicate_key = ?1";

impl Standing {
    fn find(connection: &Connection, key: DuplicateKey) -> rusqlite::Result<Option<Self>> {
        let standing = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                leaving: Leaving::of(row)?,
                since: summary::time(row, 6)?,
                until: summary::time(row, 7)?,
                is_held: row.get(8)?,
            })
        };
        connection.prepare_cached(STANDING)?.query_row([key.0], standing).optional()
    }
}

/// Where a row goes, and what stands there already.
struct Place {
    mailbox: Option<Mailbox>,
    held: Held,
}

#[derive(Clone, Copy)]
struct Mailbox {
    mailbox: i64,
    last_entry: Option<EntryId>,
}

pub(super) const FIND: &str = "
    SELECT totals.envelopes, totals.bytes, mailboxes.envelopes, mailboxes.bytes,
        shares.envelopes, shares.bytes, mailboxes.mailbox, mailboxes.last_entry
    FROM totals
    LEFT JOIN mailboxes ON mailboxes.recipient = ?1
    LEFT JOIN shares ON shares.mailbox = mailboxes.mailbox AND shares.origin = ?2
    WHERE totals.one = 1";

impl Place {
    fn find(connection: &Connection, row: &Row) -> rusqlite::Result<Self> {
        connection.prepare_cached(FIND)?.query_row(
            params![row.recipient.as_str(), row.origin.as_str()],
            |found| {
                let number = |index| -> rusqlite::Result<u64> {
                    Ok(found.get::<_, Option<i64>>(index)?.map_or(0, unsigned))
                };
                let load = |envelopes, bytes| -> rusqlite::Result<Load> {
                    Ok(Load { envelopes: number(envelopes)?, bytes: number(bytes)? })
                };
                let last_entry = EntryId::new(number(7)?);
                let mailbox: Option<i64> = found.get(6)?;
                Ok(Self {
                    held: Held {
                        relay: load(0, 1)?,
                        mailbox: load(2, 3)?,
                        origin: load(4, 5)?,
                        onward: Load::default(),
                    },
                    mailbox: mailbox.map(|mailbox| Mailbox { mailbox, last_entry }),
                })
            },
        )
    }

    /// Appends the row, unless no id is left.
    fn store(
        &self,
        connection: &Connection,
        row: &Row,
        random: u64,
    ) -> rusqlite::Result<Option<EntryId>> {
        let mailbox = match self.mailbox {
            Some(mailbox) => mailbox,
            None => create(connection, &row.recipient, random, row.deposited_at)?,
        };
        let Some(entry) = mailbox.last_entry.and_then(EntryId::next) else { return Ok(None) };
        append(connection, mailbox.mailbox, entry, row)?;
        count_in(connection, mailbox.mailbox, entry, row)?;
        Ok(Some(entry))
    }
}

/// An empty mailbox whose first id `random` draws.
fn create(
    connection: &Connection,
    recipient: &ServerName,
    random: u64,
    used_at: i64,
) -> rusqlite::Result<Mailbox> {
    let before_first = EntryId::first(random);
    connection
        .prepare_cached(
            "INSERT INTO mailboxes (recipient, last_entry, used_at) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![recipient.as_str(), signed(before_first.get()), used_at.max(1)])?;
    let mailbox = connection.last_insert_rowid();
    connection.prepare_cached("UPDATE totals SET mailboxes = mailboxes + 1")?.execute([])?;
    Ok(Mailbox { mailbox, last_entry: Some(before_first) })
}

/// The number of `recipient`'s mailbox, which is created at `now` if there is none.
pub(super) fn mailbox_of(
    connection: &Connection,
    recipient: &ServerName,
    random: u64,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    match super::summary::mailbox(connection, recipient)? {
        Some(mailbox) => Ok(mailbox.mailbox),
        None => {
            let created = create(connection, recipient, random, signed(now.as_millis()))?;
            Ok(created.mailbox)
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
