//! Mail that its owner has from elsewhere.

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;
use rusqlite::{Connection, OptionalExtension, params};

use super::acknowledge::{self, Held};
use super::departures::Departures;
use super::{SqliteStore, damage, deposit, names, summary};
use crate::Acknowledged;
use crate::duplicate::DuplicateKey;

/// What there was of some mail.
#[derive(Debug, Default)]
struct Looked {
    acknowledged: Acknowledged,
    /// What never came, where the owner is registered.
    never_came: Vec<DuplicateKey>,
}

/// Removes what the mailbox holds of `keys`, and remembers what never came.
pub(super) async fn acknowledge(
    store: &SqliteStore,
    recipient: &ServerName,
    keys: &[DuplicateKey],
    now: Timestamp,
) -> Result<Acknowledged, StoreError> {
    let look_for = |keys: Vec<DuplicateKey>| {
        store.make_room(move || {
            let (recipient, keys) = (recipient.clone(), keys.clone());
            move |connection: &Connection| remove(connection, &recipient, &keys)
        })
    };
    let mut acknowledged = Acknowledged::default();
    for looked in damage::all_or_each(recipient, keys, look_for).await? {
        acknowledged.removed += looked.acknowledged.removed;
        let mut ahead = names(&store.ahead);
        looked.never_came.iter().for_each(|key| ahead.remember(key.ahead_of(recipient), now));
    }
    Ok(acknowledged)
}

pub(super) const FIND: &str = "
    SELECT row, mailbox, quarantined, content_bytes + members_bytes, origin, seal, duplicate_key,
        deposited_at
    FROM envelopes WHERE duplicate_key = ?1 AND mailbox = ?2";

fn remove(
    connection: &Connection,
    recipient: &ServerName,
    keys: &[DuplicateKey],
) -> rusqlite::Result<Looked> {
    let mut looked = Looked::default();
    let Some(mailbox) = summary::mailbox(connection, recipient)? else { return Ok(looked) };
    let is_registered = connection.prepare_cached(IS_REGISTERED)?.exists([recipient.as_str()])?;
    let mut departures = Departures::default();
    for key in keys {
        let held = connection
            .prepare_cached(FIND)?
            .query_row(params![key.0, mailbox.mailbox], Held::of)
            .optional()?;
        if let Some(held) = held {
            acknowledge::remember(connection, &held)?;
            departures.remove(connection, &held.leaving)?;
            looked.acknowledged.removed += 1;
        } else if is_registered && !deposit::is_acknowledged(connection, *key)? {
            looked.never_came.push(*key);
        }
    }
    // On a full disk nothing is written in vain.
    if looked.acknowledged.removed > 0 {
        departures.settle(connection)?;
        acknowledge::count(connection, mailbox.mailbox, looked.acknowledged)?;
    }
    Ok(looked)
}

pub(super) const IS_REGISTERED: &str = "
    SELECT 1 FROM registrations JOIN mailboxes USING (mailbox) WHERE recipient = ?1";
