//! Leaving an envelope.

use restante_federation_proto::ServerName;
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::body::{self, Body, Stored};
use super::{signed, unsigned};
use crate::duplicate::DuplicateKey;
use crate::{Deposit, Deposited, EntryId, MailboxLimits};

/// All that is written for an envelope, made ready before the writer's turn.
#[derive(Debug)]
pub(super) struct Row {
    recipient: ServerName,
    origin: ServerName,
    txn_id: String,
    content_hash: [u8; 32],
    duplicate_key: DuplicateKey,
    deposited_at: i64,
    content_bytes: i64,
    members_bytes: i64,
    body: Body,
    checksum: [u8; 32],
}

impl Row {
    pub(super) fn of(deposit: Deposit) -> Self {
        let mut row = Self {
            duplicate_key: DuplicateKey::of(&deposit),
            body: body::pack(&deposit),
            content_bytes: signed(deposit.content.len() as u64),
            members_bytes: signed(deposit.members.len() as u64),
            deposited_at: signed(deposit.deposited_at.as_millis()),
            content_hash: deposit.content_hash.0,
            recipient: deposit.recipient,
            origin: deposit.origin,
            txn_id: deposit.txn_id,
            checksum: [0; 32],
        };
        row.checksum = row.stored().checksum(&row.recipient);
        row
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            origin: self.origin.as_str().as_bytes(),
            txn_id: self.txn_id.as_bytes(),
            content_hash: &self.content_hash,
            deposited_at: self.deposited_at,
            content_bytes: self.content_bytes,
            members_bytes: self.members_bytes,
            coding: self.body.coding as i64,
            body: &self.body.bytes,
        }
    }

    fn bytes(&self) -> i64 {
        self.content_bytes + self.members_bytes
    }
}

/// Stores the row in its mailbox, which `random` gives its first id if there is none.
pub(super) fn deposit(
    connection: &Connection,
    row: &Row,
    limits: MailboxLimits,
    random: u64,
) -> rusqlite::Result<Deposited> {
    if is_known(connection, row.duplicate_key)? {
        return Ok(Deposited::Duplicate);
    }
    let mailbox = find(connection, &row.recipient)?;
    let (count, bytes) = mailbox.as_ref().map_or((0, 0), |mailbox| (mailbox.count, mailbox.bytes));
    if !limits.have_room(count, bytes, unsigned(row.bytes())) {
        return Ok(Deposited::MailboxFull);
    }
    let mailbox = match mailbox {
        Some(mailbox) => mailbox,
        None => create(connection, &row.recipient, EntryId::first(random))?,
    };
    let Some(entry) = mailbox.last_entry.and_then(EntryId::next) else {
        return Ok(Deposited::MailboxFull);
    };
    append(connection, mailbox.mailbox, entry, row)?;
    Ok(Deposited::Stored(entry))
}

pub(super) const KNOWN: &str = "
    SELECT 1 FROM envelopes WHERE duplicate_key = ?1
    UNION ALL SELECT 1 FROM acknowledged WHERE duplicate_key = ?1";

fn is_known(connection: &Connection, key: DuplicateKey) -> rusqlite::Result<bool> {
    connection.prepare_cached(KNOWN)?.exists([key.0])
}

struct Mailbox {
    mailbox: i64,
    last_entry: Option<EntryId>,
    count: u64,
    bytes: u64,
}

pub(super) const FIND: &str = "
    SELECT mailbox, last_entry, envelopes, bytes FROM mailboxes WHERE recipient = ?1";

fn find(connection: &Connection, recipient: &ServerName) -> rusqlite::Result<Option<Mailbox>> {
    connection
        .prepare_cached(FIND)?
        .query_row([recipient.as_str()], |row| {
            Ok(Mailbox {
                mailbox: row.get(0)?,
                last_entry: EntryId::new(unsigned(row.get(1)?)),
                count: unsigned(row.get(2)?),
                bytes: unsigned(row.get(3)?),
            })
        })
        .optional()
}

fn create(
    connection: &Connection,
    recipient: &ServerName,
    before_first: EntryId,
) -> rusqlite::Result<Mailbox> {
    connection
        .prepare_cached("INSERT INTO mailboxes (recipient, last_entry) VALUES (?1, ?2)")?
        .execute(params![recipient.as_str(), signed(before_first.get())])?;
    Ok(Mailbox {
        mailbox: connection.last_insert_rowid(),
        last_entry: Some(before_first),
        count: 0,
        bytes: 0,
    })
}

fn append(
    connection: &Connection,
    mailbox: i64,
    entry: EntryId,
    row: &Row,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO envelopes (mailbox, entry, duplicate_key, deposited_at, origin, txn_id,
                 content_hash, content_bytes, members_bytes, coding, checksum, body)
             VALUES (:mailbox, :entry, :duplicate_key, :deposited_at, :origin, :txn_id,
                 :content_hash, :content_bytes, :members_bytes, :coding, :checksum, :body)",
        )?
        .execute(named_params! {
            ":mailbox": mailbox,
            ":entry": signed(entry.get()),
            ":duplicate_key": row.duplicate_key.0,
            ":deposited_at": row.deposited_at,
            ":origin": row.origin.as_str(),
            ":txn_id": row.txn_id,
            ":content_hash": row.content_hash,
            ":content_bytes": row.content_bytes,
            ":members_bytes": row.members_bytes,
            ":coding": row.body.coding as i64,
            ":checksum": row.checksum,
            ":body": &row.body.bytes[..],
        })?;
    connection
        .prepare_cached(
            "UPDATE mailboxes SET last_entry = ?2, envelopes = envelopes + 1, bytes = bytes + ?3
             WHERE mailbox = ?1",
        )?
        .execute(params![mailbox, signed(entry.get()), row.bytes()])?;
    Ok(())
}
