//! Leaving an envelope.

use std::sync::Mutex;

use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::body::{self, Body, Stored};
use super::departures::{Departures, Leaving};
use super::place::Place;
use super::seals::{self, Seals};
use super::{losses, names, onward, signed, summary, unsigned};
use crate::ahead::Ahead;
use crate::duplicate::{AheadKey, DuplicateKey};
use crate::envelope::is_of_the_moment;
use crate::{Deposit, Deposited, Full, Imported, Known, LossKind, MailboxLimits, Onward, Quotas};

/// All that is written for an envelope, made ready before the writer's turn.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) recipient: ServerName,
    pub(super) origin: ServerName,
    pub(super) txn_id: String,
    pub(super) content_hash: [u8; 32],
    pub(super) duplicate_key: DuplicateKey,
    pub(super) ahead_key: AheadKey,
    pub(super) deposited_at: i64,
    pub(super) expires_at: i64,
    pub(super) content_bytes: i64,
    pub(super) members_bytes: i64,
    pub(super) body: Body,
    pub(super) seal: i64,
    pub(super) checksum: [u8; 32],
    pub(super) onward: Onward,
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

    pub(super) fn bytes(&self) -> i64 {
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
    let met = meet(connection, row, ahead)?;
    if let Some((known, standing)) = met
        && (row.onward == Onward::No || standing != Some(Onward::No))
    {
        return Ok(Deposited::Duplicate(known));
    }
    let place = Place::find(connection, row, quotas)?;
    if let Some((known, _)) = met {
        // It is held, so that nothing is lost.
        if !quotas.onward.have_room(place.held.onward, unsigned(row.bytes())) {
            return Ok(Deposited::Full(Full::Share));
        }
        onward::mark(connection, row.duplicate_key)?;
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
        let place = Place::find(connection, row, Quotas::of_mailboxes(MailboxLimits::UNBOUNDED))?;
        let stored = place.store(connection, row, random())?;
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

/// What is known of mail that is left, once it has expired if it is past its time; and, if it stands here, whether that is to be
/// delivered onward.
fn meet(
    connection: &Connection,
    row: &Row,
    ahead: &Mutex<Ahead>,
) -> rusqlite::Result<Option<(Known, Option<Onward>)>> {
    let now = Timestamp::from_millis(unsigned(row.deposited_at));
    if let Some(standing) = Standing::find(connection, row.duplicate_key)? {
        if standing.is_held || standing.until >= now {
            let Standing { since, until, onward, .. } = standing;
            return Ok(Some((Known::Held { since, until }, Some(onward))));
        }
        let mut departures = Departures::default();
        if is_of_the_moment(standing.until.since(standing.since)) {
            departures.remove(connection, &standing.leaving)?;
        } else {
            departures.lose(connection, &standing.leaving)?;
        }
        departures.settle_losses(connection, LossKind::Expired, now)?;
        return Ok(None);
    }
    if is_acknowledged(connection, row.duplicate_key)? {
        return Ok(Some((Known::Acknowledged, None)));
    }
    // If this is undone, the name is forgotten all the same: that costs a download.
    if !names(ahead).meet(&row.ahead_key, now) {
        return Ok(None);
    }
    connection
        .prepare_cached("INSERT INTO acknowledged (duplicate_key, deposited_at) VALUES (?1, ?2)")?
        .execute(params![row.duplicate_key.0, row.deposited_at])?;
    Ok(Some((Known::Acknowledged, None)))
}

/// An envelope that stands where the same is left again.
struct Standing {
    leaving: Leaving,
    since: Timestamp,
    until: Timestamp,
    is_held: bool,
    onward: Onward,
}

pub(super) const STANDING: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal,
        deposited_at, expires_at, EXISTS (
            SELECT 1 FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox AND held <> 0),
        onward
    FROM envelopes WHERE duplicate_key = ?1";

impl Standing {
    fn find(connection: &Connection, key: DuplicateKey) -> rusqlite::Result<Option<Self>> {
        let standing = |row: &rusqlite::Row<'_>| {
            Ok(Self {
                leaving: Leaving::of(row)?,
                since: summary::time(row, 6)?,
                until: summary::time(row, 7)?,
                is_held: row.get(8)?,
                onward: Onward::of(row.get(9)?),
            })
        };
        connection.prepare_cached(STANDING)?.query_row([key.0], standing).optional()
    }
}
