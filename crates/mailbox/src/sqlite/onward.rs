//! Mail that is to be delivered onward.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::{despite_others, is_damaged};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::acknowledge::{self, Held};
use super::collect::{self, Damaged, Found, Walk};
use super::departures::{Departures, Leaving};
use super::{SqliteStore, damage, signed, summary, unsigned};
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
        let mut after = 0;
        loop {
            let (whose, origin, seals) = (recipient.clone(), origin.clone(), self.seals.clone());
            let read = move |connection: &Connection| {
                first((connection, &seals), (&whose, &origin), after, now)
            };
            let damaged = match self.database.read(read).await? {
                First::None => return Ok(None),
                First::Whole(envelope) => return Ok(Some(*envelope)),
                First::Damaged(damaged) => damaged,
            };
            after = signed(damaged.id.get());
            let mark = || collect::marking(recipient, vec![damaged]);
            match despite_others(|| self.make_room(mark)).await {
                Ok(marked) => collect::report(recipient, &marked),
                // What lies on a damaged page can't even be marked; others go on behind it.
                Err(error) if error.is_damage() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(mailbox.recipient = %recipient, envelope.id = damaged.id.get(), error,
                        "a damaged envelope can't be set aside; check the disk");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn hand_on(
        &self,
        recipient: &ServerName,
        id: EntryId,
        way: HandedOn,
    ) -> Result<bool, StoreError> {
        let hand_on = |removal| {
            self.make_room(move || {
                let recipient = recipient.clone();
                move |connection: &_| hand_on(connection, (&recipient, id), way, removal)
            })
        };
        let damage = match despite_others(|| hand_on(Removal::Whole)).await {
            Err(error) if error.is_damage() => error,
            handed_on => return Ok(handed_on?),
        };
        tracing::error!(mailbox.recipient = %recipient, envelope.id = id.get(),
            error = &damage as &dyn std::error::Error,
            "an envelope beside a damaged page was delivered and can't be removed; check the disk");
        Ok(hand_on(Removal::OnwardAlone).await?)
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
        let take_out = |withdrawals: Vec<Withdrawal>| {
            self.make_room(move || {
                let (origin, withdrawals) = (origin.clone(), withdrawals.clone());
                move |connection: &_| withdraw(connection, &origin, &withdrawals)
            })
        };
        let done = damage::all_or_each(origin, withdrawals, take_out).await?;
        Ok(done.iter().sum())
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

/// The index alone answers this, so that a damaged row can't stop the walk.
pub(super) const IN_ORDER: &str = "
    SELECT row, entry FROM envelopes
    WHERE mailbox = ?1 AND origin = ?2 AND onward = 1 AND quarantined = 0 AND entry > ?3
    ORDER BY entry";

/// What is past its time stands there until it expires.
pub(super) const IS_PAST: &str = "SELECT 1 FROM envelopes WHERE row = ?1 AND expires_at < ?2";

enum First {
    None,
    Whole(Box<StoredEnvelope>),
    Damaged(Damaged),
}

fn first(
    (connection, seals): (&Connection, &super::Seals),
    (recipient, origin): (&ServerName, &ServerName),
    after: i64,
    now: Timestamp,
) -> rusqlite::Result<First> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(First::None) };
    if mailbox.hold == Hold::Held {
        return Ok(First::None);
    }
    let walk = Walk::to_one(connection, seals, recipient, mailbox.mailbox);
    let mut statement = connection.prepare_cached(IN_ORDER)?;
    let mut entries = statement.query(params![mailbox.mailbox, origin.as_str(), after])?;
    while let Some(entry) = entries.next()? {
        let row = entry.get(0)?;
        let Some(id) = EntryId::new(unsigned(entry.get(1)?)) else { continue };
        let past = params![row, signed(now.as_millis())];
        match connection.prepare_cached(IS_PAST)?.exists(past) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) if is_damaged(&error) => return Ok(First::Damaged(Damaged { id, row })),
            Err(error) => return Err(error),
        }
        match walk.envelope(row, u64::MAX)? {
            Found::Whole(deposit) => {
                return Ok(First::Whole(Box::new(StoredEnvelope { id, deposit })));
            }
            Found::Damaged => return Ok(First::Damaged(Damaged { id, row })),
            Found::TooLarge | Found::Elsewhere => {}
        }
    }
    Ok(First::None)
}

pub(super) const FIND: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, duplicate_key,
        deposited_at
    FROM envelopes WHERE mailbox = ?1 AND quarantined = 0 AND entry = ?2";

/// What is done with an envelope that was handed on.
#[derive(Debug, Clone, Copy)]
enum Removal {
    /// It leaves the mailbox.
    Whole,
    /// It stays there, and is delivered no more: removing it would move rows of a page that is lost, which marking does not.
    OnwardAlone,
}

pub(super) const UNMARK: &str = "UPDATE envelopes SET onward = 0 WHERE row = ?1";

fn hand_on(
    connection: &Connection,
    (recipient, id): (&ServerName, EntryId),
    way: HandedOn,
    removal: Removal,
) -> rusqlite::Result<bool> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(false) };
    let held = connection
        .prepare_cached(FIND)?
        .query_row(params![mailbox.mailbox, signed(id.get())], Held::of)
        .optional()?;
    let Some(held) = held else { return Ok(false) };
    match removal {
        Removal::Whole => {
            acknowledge::remember(connection, &held)?;
            let mut departures = Departures::default();
            departures.remove(connection, &held.leaving)?;
            departures.settle(connection)?;
        }
        Removal::OnwardAlone => {
            connection.prepare_cached(UNMARK)?.execute([held.leaving.row])?;
        }
    }
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
            connection.prepare_cached(UNMARK)?.execute([leaving.row])?;
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
