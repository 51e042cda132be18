//! Mail that is to be delivered onward.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::acknowledge::{self, Held};
use super::collect::{self, Damaged, Found, Walk};
use super::departures::{Departures, Leaving};
use super::{SqliteStore, signed, summary, unsigned};
use crate::duplicate::DuplicateKey;
use crate::rules::{Load, OnwardHeld};
use crate::{
    EntryId, HandedOn, Hold, MailName, OnwardMail, StoreError, StoredEnvelope, Withdrawal,
};

#[async_trait]
impl OnwardMail for SqliteStore {
    async fn awaited_by(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError> {
        let after = after.cloned();
        let read = move |connection: &_| awaited_by(connection, after.as_ref(), limit);
        Ok(self.database.read(read).await?)
    }

    async fn awaiting(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError> {
        let (recipient, after) = (recipient.clone(), after.cloned());
        let read = move |connection: &_| awaiting(connection, &recipient, after.as_ref(), limit);
        Ok(self.database.read(read).await?)
    }

    async fn first_onward(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
        now: Timestamp,
    ) -> Result<Option<StoredEnvelope>, StoreError> {
        let mut has_missed = false;
        loop {
            let (whose, origin, seals) = (recipient.clone(), origin.clone(), self.seals.clone());
            let read =
                move |connection: &Connection| first(connection, &seals, (&whose, &origin), now);
            match self.database.read(read).await? {
                First::None => return Ok(None),
                First::Whole(envelope) => return Ok(Some(*envelope)),
                First::Damaged(damaged) => {
                    let mark = || collect::marking(recipient, vec![damaged]);
                    let marked = self.make_room(mark).await?;
                    collect::report(recipient, &marked);
                    // Somebody else may have been quicker, once; what is met again can't be found to be marked, and others go on.
                    if marked.is_empty() && std::mem::replace(&mut has_missed, true) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn hand_on(
        &self,
        recipient: &ServerName,
        id: EntryId,
        way: HandedOn,
    ) -> Result<bool, StoreError> {
        let hand_on = || {
            let recipient = recipient.clone();
            move |connection: &_| hand_on(connection, &recipient, id, way)
        };
        Ok(self.make_room(hand_on).await?)
    }

    async fn refuse_onward(&self, recipient: &ServerName, id: EntryId) -> Result<(), StoreError> {
        // What can't be kept for want of room would be sent to whoever refused it again and again.
        let refuse = || {
            let recipient = recipient.clone();
            move |connection: &Connection| {
                connection
                    .prepare_cached(REFUSE)?
                    .execute(params![recipient.as_str(), signed(id.get())])
                    .map(drop)
            }
        };
        Ok(self.make_room(refuse).await?)
    }

    async fn withdraw(
        &self,
        origin: &ServerName,
        withdrawals: &[Withdrawal],
    ) -> Result<u64, StoreError> {
        let withdraw = || {
            let (origin, withdrawals) = (origin.clone(), withdrawals.to_vec());
            move |connection: &_| withdraw(connection, &origin, &withdrawals)
        };
        Ok(self.make_room(withdraw).await?)
    }
}

pub(super) const LOAD: &str = "SELECT envelopes, bytes FROM onward_origins WHERE origin = ?1";

pub(super) const IS_DESTINATION: &str =
    "SELECT 1 FROM onward_destinations WHERE mailbox = ?1 AND origin = ?2";

pub(super) const DESTINATIONS: &str =
    "SELECT 1 FROM onward_destinations WHERE origin = ?1 LIMIT ?2";

/// What `origin` has to be delivered onward; of the recipients other than that of `mailbox` it counts as many as `destinations_max`.
pub(super) fn held(
    connection: &Connection,
    origin: &str,
    (mailbox, destinations_max): (Option<i64>, u64),
) -> rusqlite::Result<OnwardHeld> {
    let load =
        |row: &Row<'_>| Ok(Load { envelopes: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) });
    let load = connection.prepare_cached(LOAD)?.query_row([origin], load).optional()?;
    let mut held = OnwardHeld { load: load.unwrap_or_default(), other_destinations: None };
    if let Some(mailbox) = mailbox
        && connection.prepare_cached(IS_DESTINATION)?.exists(params![mailbox, origin])?
    {
        return Ok(held);
    }
    let mut destinations = connection.prepare_cached(DESTINATIONS)?;
    let mut rows = destinations.query(params![origin, signed(destinations_max)])?;
    let mut others = 0;
    while rows.next()?.is_some() {
        others += 1;
    }
    held.other_destinations = Some(others);
    Ok(held)
}

pub(super) const MARK: &str = "
    UPDATE envelopes SET onward = 1 WHERE duplicate_key = ?1 AND onward = 0";

/// What lies there already is to be delivered as well.
pub(super) fn mark(connection: &Connection, key: DuplicateKey) -> rusqlite::Result<()> {
    connection.prepare_cached(MARK)?.execute([key.0]).map(drop)
}

pub(super) const AWAITED_BY: &str = "
    SELECT recipient FROM mailboxes
    WHERE recipient > ?1 AND held = 0 AND envelopes > 0 AND EXISTS (
        SELECT 1 FROM envelopes AS waiting
        WHERE waiting.mailbox = mailboxes.mailbox AND onward = 1 AND waiting.quarantined = 0)
    ORDER BY recipient LIMIT ?2";

fn awaited_by(
    connection: &Connection,
    after: Option<&ServerName>,
    limit: usize,
) -> rusqlite::Result<Vec<ServerName>> {
    let mut statement = connection.prepare_cached(AWAITED_BY)?;
    let after = after.map_or("", ServerName::as_str);
    let name = |row: &Row<'_>| summary::server_name(row, 0);
    statement.query_map(params![after, signed(limit as u64)], name)?.collect()
}

/// Each step jumps to the next origin in the index, whatever number of envelopes each has.
pub(super) const AWAITING: &str = "
    SELECT origin FROM envelopes
    WHERE mailbox = ?1 AND origin > ?2 AND onward = 1 AND quarantined = 0
    ORDER BY origin LIMIT 1";

fn awaiting(
    connection: &Connection,
    recipient: &ServerName,
    after: Option<&ServerName>,
    limit: usize,
) -> rusqlite::Result<Vec<ServerName>> {
    let mut origins = Vec::new();
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(origins) };
    if mailbox.hold == Hold::Held {
        return Ok(origins);
    }
    let mut statement = connection.prepare_cached(AWAITING)?;
    let mut after = after.map_or("", ServerName::as_str).to_owned();
    while origins.len() < limit {
        let next = statement.query_row(params![mailbox.mailbox, after], |row| row.get(0));
        let Some(next) = next.optional()? else { break };
        after = next;
        // A name that is none was damaged: its envelope is set aside by whoever collects.
        origins.extend(after.parse::<ServerName>().ok());
    }
    Ok(origins)
}

/// What is past its time stands there until it expires; there is little of that, since expiry looks each minute.
pub(super) const FIRST: &str = "
    SELECT row, entry FROM envelopes
    WHERE mailbox = ?1 AND origin = ?2 AND onward = 1 AND quarantined = 0 AND expires_at >= ?3
    ORDER BY entry LIMIT 1";

enum First {
    None,
    Whole(Box<StoredEnvelope>),
    Damaged(Damaged),
}

fn first(
    connection: &Connection,
    seals: &super::Seals,
    (recipient, origin): (&ServerName, &ServerName),
    now: Timestamp,
) -> rusqlite::Result<First> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(First::None) };
    if mailbox.hold == Hold::Held {
        return Ok(First::None);
    }
    let found = connection
        .prepare_cached(FIRST)?
        .query_row(params![mailbox.mailbox, origin.as_str(), signed(now.as_millis())], |found| {
            Ok((found.get(0)?, found.get(1)?))
        })
        .optional()?;
    let Some((row, entry)) = found else { return Ok(First::None) };
    let Some(id) = EntryId::new(unsigned(entry)) else { return Ok(First::None) };
    let walk = Walk::to_one(connection, seals, recipient, mailbox.mailbox);
    Ok(match walk.envelope(row, u64::MAX)? {
        Found::Whole(deposit) => First::Whole(Box::new(StoredEnvelope { id, deposit })),
        Found::Damaged => First::Damaged(Damaged { id, row }),
        Found::TooLarge | Found::Elsewhere => First::None,
    })
}

pub(super) const FIND: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, duplicate_key,
        deposited_at
    FROM envelopes WHERE mailbox = ?1 AND quarantined = 0 AND entry = ?2";

fn hand_on(
    connection: &Connection,
    recipient: &ServerName,
    id: EntryId,
    way: HandedOn,
) -> rusqlite::Result<bool> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(false) };
    let held = connection
        .prepare_cached(FIND)?
        .query_row(params![mailbox.mailbox, signed(id.get())], Held::of)
        .optional()?;
    let Some(held) = held else { return Ok(false) };
    acknowledge::remember(connection, &held)?;
    let mut departures = Departures::default();
    departures.remove(connection, &held.leaving)?;
    departures.settle(connection)?;
    let count = match way {
        HandedOn::Delivered => {
            "UPDATE mailboxes SET delivered_total = delivered_total + 1 WHERE mailbox = ?1"
        }
        HandedOn::PassedOn => {
            "UPDATE mailboxes SET passed_on_total = passed_on_total + 1 WHERE mailbox = ?1"
        }
    };
    connection.prepare_cached(count)?.execute([mailbox.mailbox])?;
    Ok(true)
}

pub(super) const REFUSE: &str = "
    UPDATE envelopes SET onward = 2
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1) AND quarantined = 0
        AND entry = ?2 AND onward = 1";

pub(super) const WITHDRAWN: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal,
        EXISTS (SELECT 1 FROM registrations WHERE registrations.mailbox = envelopes.mailbox)
    FROM envelopes WHERE duplicate_key = ?1 AND onward > 0";

fn withdraw(
    connection: &Connection,
    origin: &ServerName,
    withdrawals: &[Withdrawal],
) -> rusqlite::Result<u64> {
    let mut departures = Departures::default();
    let mut count = 0;
    for Withdrawal { recipient, txn_id, content_hash } in withdrawals {
        let (origin, content_hash) = (origin.clone(), *content_hash);
        let name = MailName { origin, txn_id: txn_id.clone(), content_hash };
        let key = DuplicateKey::named(recipient, &name);
        let found = connection
            .prepare_cached(WITHDRAWN)?
            .query_row([key.0], |row| Ok((Leaving::of(row)?, row.get::<_, bool>(6)?)))
            .optional()?;
        let Some((leaving, is_registered)) = found else { continue };
        count += 1;
        if is_registered {
            connection
                .prepare_cached("UPDATE envelopes SET onward = 0 WHERE row = ?1")?
                .execute([leaving.row])?;
            continue;
        }
        departures.remove(connection, &leaving)?;
        connection
            .prepare_cached(
                "UPDATE mailboxes SET withdrawn_total = withdrawn_total + 1 WHERE recipient = ?1",
            )?
            .execute([recipient.as_str()])?;
    }
    departures.settle(connection)?;
    Ok(count)
}
