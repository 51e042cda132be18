//! What became of mail, by its duplicate key, and mail that its owner has from elsewhere.
//!
//! A key that is remembered ahead of the mail stands in the same table as those of acknowledged mail, and expires with
//! them. The hash of its mailbox's owner is written before it, so that those of one mailbox stand side by side and can
//! be counted.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::acknowledge::{self, Held};
use super::departures::Departures;
use super::{SqliteStore, deposit, signed, summary, unsigned};
use crate::duplicate::DuplicateKey;
use crate::{Accounts, Acknowledged, MailName, NAMES_AHEAD_MAX, StoreError, Whereabouts};

#[async_trait]
impl Accounts for SqliteStore {
    async fn whereabouts(
        &self,
        mail: &[(ServerName, MailName)],
        now: Timestamp,
    ) -> Result<Vec<Whereabouts>, StoreError> {
        let mail = mail.to_vec();
        let read = move |connection: &Connection| {
            let one = |(recipient, name): &_| whereabouts(connection, recipient, name, now);
            mail.iter().map(one).collect()
        };
        Ok(self.database.read(read).await?)
    }

    async fn acknowledge_copies(
        &self,
        recipient: &ServerName,
        copies: &[MailName],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        let keys = copies.iter().map(|name| DuplicateKey::named(recipient, name));
        let keys: Vec<_> = keys.collect();
        let acknowledge = || {
            let (recipient, keys, reserve) =
                (recipient.clone(), keys.clone(), self.reserve.clone());
            move |connection: &Connection| {
                let (acknowledged, absent) = remove(connection, &recipient, &keys)?;
                // While the disk is full, what is kept back for removing mail is not used up for names.
                if !absent.is_empty() && reserve.admits(connection)? {
                    remember_ahead(connection, &recipient, &absent, now)?;
                }
                Ok(acknowledged)
            }
        };
        Ok(self.make_room(acknowledge).await?)
    }
}

/// A held mailbox keeps what is past its time.
pub(super) const HELD: &str = "
    SELECT expires_at >= ?2 OR EXISTS (
        SELECT 1 FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox AND held <> 0)
    FROM envelopes WHERE duplicate_key = ?1";

fn whereabouts(
    connection: &Connection,
    recipient: &ServerName,
    name: &MailName,
    now: Timestamp,
) -> rusqlite::Result<Whereabouts> {
    let key = DuplicateKey::named(recipient, name);
    let now = signed(now.as_millis());
    let held: Option<bool> = connection
        .prepare_cached(HELD)?
        .query_row(params![key.0, now], |row| row.get(0))
        .optional()?;
    Ok(match held {
        Some(true) => Whereabouts::Held,
        Some(false) => Whereabouts::Unknown,
        None if deposit::is_known(connection, key, key.ahead_of(recipient))? => {
            Whereabouts::Acknowledged
        }
        None => Whereabouts::Unknown,
    })
}

pub(super) const FIND: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, duplicate_key,
        deposited_at
    FROM envelopes WHERE duplicate_key = ?1 AND mailbox = ?2";

/// Removes what the mailbox holds of `keys`, and tells which it does not hold.
fn remove(
    connection: &Connection,
    recipient: &ServerName,
    keys: &[DuplicateKey],
) -> rusqlite::Result<(Acknowledged, Vec<DuplicateKey>)> {
    let Some(mailbox) = summary::mailbox(connection, recipient)? else {
        return Ok((Acknowledged::default(), Vec::new()));
    };
    let (mut departures, mut absent) = (Departures::default(), Vec::new());
    let mut acknowledged = Acknowledged::default();
    for key in keys {
        let held = connection
            .prepare_cached(FIND)?
            .query_row(params![key.0, mailbox.mailbox], Held::of)
            .optional()?;
        match held {
            Some(held) => {
                acknowledge::remember(connection, &held)?;
                departures.remove(connection, &held.leaving)?;
                acknowledged.removed += 1;
            }
            None => absent.push(*key),
        }
    }
    departures.settle(connection)?;
    acknowledge::count(connection, mailbox.mailbox, acknowledged)?;
    Ok((acknowledged, absent))
}

pub(super) const IS_REGISTERED: &str = "
    SELECT 1 FROM registrations JOIN mailboxes USING (mailbox) WHERE recipient = ?1";

/// Counting walks what it counts: [`NAMES_AHEAD_MAX`] at most.
pub(super) const AHEAD: &str =
    "SELECT count(*) FROM acknowledged WHERE duplicate_key BETWEEN ?1 AND ?2";

fn remember_ahead(
    connection: &Connection,
    recipient: &ServerName,
    keys: &[DuplicateKey],
    now: Timestamp,
) -> rusqlite::Result<()> {
    if !connection.prepare_cached(IS_REGISTERED)?.exists([recipient.as_str()])? {
        return Ok(());
    }
    let (first, last) = DuplicateKey::all_ahead_of(recipient);
    let remembered: i64 =
        connection.prepare_cached(AHEAD)?.query_row(params![first, last], |row| row.get(0))?;
    let mut room = NAMES_AHEAD_MAX.saturating_sub(unsigned(remembered));
    for key in keys {
        let ahead = key.ahead_of(recipient);
        if room == 0 {
            break;
        }
        if deposit::is_known(connection, *key, ahead)? {
            continue;
        }
        connection
            .prepare_cached(
                "INSERT INTO acknowledged (duplicate_key, deposited_at) VALUES (?1, ?2)",
            )?
            .execute(params![ahead, signed(now.as_millis())])?;
        room -= 1;
    }
    Ok(())
}
