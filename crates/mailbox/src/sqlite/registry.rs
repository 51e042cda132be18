//! Registrations and invites.

use std::time::Duration;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{SqliteStore, lapse, losses, names, place, signed, summary, unsigned};
use crate::registry::{check_invite, check_registration};
use crate::{
    AdmittedBy, Custody, INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, Lapse, Lapsed,
    Left, LeftMail, OpenInvite, Outgoing, REGISTRATIONS_MAX, RegisterOutcome, Registration,
    Registry, Revoked, Selection, Senders, StoreError,
};

#[async_trait]
impl Registry for SqliteStore {
    async fn registration(
        &self,
        recipient: &ServerName,
    ) -> Result<Option<Registration>, StoreError> {
        let recipient = recipient.clone();
        Ok(self.database.read(move |connection| registration(connection, &recipient)).await?)
    }

    async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError> {
        if let Some(refused) = check_registration(&registration) {
            return Ok(refused);
        }
        let random = rand::random();
        self.add(move |connection| register(connection, &registration, invite, now, random)).await
    }

    async fn leave(
        &self,
        recipient: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        let end = || {
            let recipient = recipient.clone();
            move |connection: &_| unregister(connection, &recipient)
        };
        self.make_room(end).await?;
        names(&self.ahead).forget_all_of(recipient);
        if mail == LeftMail::Keep {
            return Ok(Left::default());
        }
        let dropped = self.drop_mail(recipient, Selection::All, now).await?;
        let forget = || {
            let recipient = recipient.clone();
            let all = Timestamp::from_millis(u64::MAX);
            move |connection: &_| {
                losses::forget(connection, &recipient, all)?;
                lapse::give_up(connection, &recipient)
            }
        };
        self.make_room(forget).await?;
        Ok(Left { dropped })
    }

    async fn note_call(&self, recipient: &ServerName, now: Timestamp) -> Result<(), StoreError> {
        let recipient = recipient.clone();
        let note = move |connection: &_| lapse::note_call(connection, &recipient, now);
        Ok(self.database.write(note).await?)
    }

    async fn lapse(
        &self,
        lapse: &Lapse,
        after: Option<&ServerName>,
        batch_max: usize,
    ) -> Result<Lapsed, StoreError> {
        let (asked, after) = (lapse.clone(), after.cloned());
        let find = move |connection: &_| lapse::find(connection, &asked, after.as_ref(), batch_max);
        let page = self.database.read(find).await?;
        if page.candidates.is_empty() {
            return Ok(Lapsed { last: page.last, ..Lapsed::default() });
        }
        let end = || {
            let (lapse, page) = (lapse.clone(), page.clone());
            move |connection: &_| lapse::end(connection, &lapse, page)
        };
        let lapsed = self.make_room(end).await?;
        let mut ahead = names(&self.ahead);
        lapsed.registrations.iter().for_each(|recipient| ahead.forget_all_of(recipient));
        Ok(lapsed)
    }

    async fn invite(&self, invite: Invite) -> Result<InviteOutcome, StoreError> {
        if let Some(refused) = check_invite(&invite) {
            return Ok(refused);
        }
        self.add(move |connection| keep_invite(connection, &invite)).await
    }

    async fn invites(&self) -> Result<Vec<OpenInvite>, StoreError> {
        Ok(self.database.read(invites).await?)
    }

    async fn revoke_invite(&self, id: InviteId) -> Result<Revoked, StoreError> {
        let revoke = || move |connection: &Connection| remove_invite(connection, id);
        match self.make_room(revoke).await? {
            0 => Ok(Revoked::NoSuchInvite),
            _ => Ok(Revoked::Yes),
        }
    }
}

pub(super) const FIND: &str = "
    SELECT record, allow, block, time_to_live, registered_at, by_operator, outgoing FROM registrations
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1)";

fn registration(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Option<Registration>> {
    let registration = |row: &Row<'_>| {
        let record: Vec<u8> = row.get(0)?;
        let allow: Option<String> = row.get(1)?;
        let time_to_live: Option<i64> = row.get(3)?;
        Ok(Registration {
            recipient: recipient.clone(),
            record: record.into(),
            senders: Senders {
                allow: allow.map(|allow| patterns(1, &allow)).transpose()?,
                block: patterns(2, &row.get::<_, String>(2)?)?,
            },
            time_to_live: time_to_live.map(|millis| Duration::from_millis(unsigned(millis))),
            registered_at: summary::time(row, 4)?,
            admitted_by: admitted_by(row.get(5)?),
            outgoing: if row.get(6)? { Outgoing::Yes } else { Outgoing::No },
        })
    };
    connection.prepare_cached(FIND)?.query_row([recipient.as_str()], registration).optional()
}

fn admitted_by(by_operator: i64) -> AdmittedBy {
    if by_operator == 0 { AdmittedBy::Nobody } else { AdmittedBy::Operator }
}

fn patterns(column: usize, json: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

fn json(patterns: &[String]) -> rusqlite::Result<String> {
    let json = serde_json::to_string(patterns);
    json.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn register(
    connection: &Connection,
    registration: &Registration,
    invite: Option<InviteHash>,
    now: Timestamp,
    random: u64,
) -> rusqlite::Result<RegisterOutcome> {
    let recipient = &registration.recipient;
    let before = admission(connection, recipient)?;
    let mut admitted_by = registration.admitted_by.max(before.unwrap_or_default());
    if before.is_none() && registrations(connection)? >= REGISTRATIONS_MAX {
        return Ok(RegisterOutcome::TooMany);
    }
    if let Some(hash) = invite.filter(|_| before != Some(AdmittedBy::Operator)) {
        let found = invite_with(connection, hash)?;
        match found.filter(|open| open.invite.admits(recipient, now)) {
            Some(open) => {
                remove_invite(connection, open.id)?;
                admitted_by = AdmittedBy::Operator;
            }
            None if before.is_none() => return Ok(RegisterOutcome::InviteUnknownOrUsed),
            None => {}
        }
    }
    if before.is_none() {
        connection
            .prepare_cached("UPDATE totals SET registrations = registrations + 1")?
            .execute([])?;
    }
    let mailbox = place::mailbox_of(connection, recipient, random, now)?;
    let allow = registration.senders.allow.as_deref().map(json).transpose()?;
    let time_to_live =
        registration.time_to_live.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO registrations
                 (mailbox, record, allow, block, time_to_live, registered_at, by_operator, called_at,
                  outgoing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            mailbox,
            &registration.record[..],
            allow,
            json(&registration.senders.block)?,
            time_to_live,
            signed(registration.registered_at.as_millis()),
            i64::from(admitted_by == AdmittedBy::Operator),
            signed(now.as_millis()),
            i64::from(registration.outgoing == Outgoing::Yes)
        ])?;
    Ok(RegisterOutcome::Accepted)
}

pub(super) const ADMISSION: &str = "
    SELECT by_operator FROM registrations
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1)";

/// By whose word `recipient` is registered, if it is.
fn admission(
    connection: &Connection,
    recipient: &ServerName,
) -> rusqlite::Result<Option<AdmittedBy>> {
    let by_operator = |row: &Row<'_>| row.get(0).map(admitted_by);
    connection.prepare_cached(ADMISSION)?.query_row([recipient.as_str()], by_operator).optional()
}

fn registrations(connection: &Connection) -> rusqlite::Result<u64> {
    let count = |row: &Row<'_>| row.get(0).map(unsigned);
    connection.prepare_cached("SELECT registrations FROM totals")?.query_row([], count)
}

pub(super) const UNREGISTER: &str = "
    DELETE FROM registrations
    WHERE mailbox = (SELECT mailbox FROM mailboxes WHERE recipient = ?1)";

fn unregister(connection: &Connection, recipient: &ServerName) -> rusqlite::Result<()> {
    let ended = connection.prepare_cached(UNREGISTER)?.execute([recipient.as_str()])?;
    connection
        .prepare_cached("UPDATE totals SET registrations = max(0, registrations - ?1)")?
        .execute([signed(ended as u64)])?;
    Ok(())
}

pub(super) const FORGET_INVITES: &str = "DELETE FROM invites WHERE expires_at <= ?1";

fn keep_invite(connection: &Connection, invite: &Invite) -> rusqlite::Result<InviteOutcome> {
    let created_at = signed(invite.created_at.as_millis());
    connection.prepare_cached(FORGET_INVITES)?.execute([created_at])?;
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM invites")?
        .query_row([], |row| row.get(0))?;
    if unsigned(count) >= INVITES_MAX {
        return Ok(InviteOutcome::TooMany);
    }
    connection
        .prepare_cached(
            "INSERT INTO invites (hash, server, note, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            invite.hash.0,
            invite.server.as_ref().map(ServerName::as_str),
            invite.note,
            created_at,
            signed(invite.expires_at.as_millis())
        ])?;
    Ok(InviteOutcome::Created(InviteId(unsigned(connection.last_insert_rowid()))))
}

pub(super) const WITH_HASH: &str = "
    SELECT invite, hash, server, note, created_at, expires_at FROM invites WHERE hash = ?1";

fn invite_with(connection: &Connection, hash: InviteHash) -> rusqlite::Result<Option<OpenInvite>> {
    connection.prepare_cached(WITH_HASH)?.query_row([hash.0], invite_of).optional()
}

/// There are at most [`INVITES_MAX`].
fn invites(connection: &Connection) -> rusqlite::Result<Vec<OpenInvite>> {
    let sql =
        "SELECT invite, hash, server, note, created_at, expires_at FROM invites ORDER BY invite";
    connection.prepare_cached(sql)?.query_map([], invite_of)?.collect()
}

fn invite_of(row: &Row<'_>) -> rusqlite::Result<OpenInvite> {
    let server: Option<String> = row.get(2)?;
    Ok(OpenInvite {
        id: InviteId(unsigned(row.get(0)?)),
        invite: Invite {
            hash: InviteHash(row.get(1)?),
            server: server.map(|_| summary::server_name(row, 2)).transpose()?,
            note: row.get(3)?,
            created_at: summary::time(row, 4)?,
            expires_at: summary::time(row, 5)?,
        },
    })
}

fn remove_invite(connection: &Connection, id: InviteId) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM invites WHERE invite = ?1")?.execute([signed(id.0)])
}
