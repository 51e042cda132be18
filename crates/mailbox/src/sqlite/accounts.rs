//! What became of mail, by its duplicate key.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::is_damaged;
use rusqlite::{Connection, OptionalExtension, params};

use super::{SqliteStore, copies, deposit, signed};
use crate::duplicate::DuplicateKey;
use crate::{Accounts, Acknowledged, MailName, StoreError, Whereabouts};

#[async_trait]
impl Accounts for SqliteStore {
    async fn whereabouts(
        &self,
        mail: &[(ServerName, MailName)],
        now: Timestamp,
    ) -> Result<Vec<Whereabouts>, StoreError> {
        let keys = mail.iter().map(|(recipient, name)| DuplicateKey::named(recipient, name));
        let keys: Vec<_> = keys.collect();
        let read = move |connection: &Connection| {
            keys.iter().map(|key| whole_whereabouts(connection, *key, now)).collect()
        };
        Ok(self.database.read(read).await?)
    }

    async fn acknowledge_copies(
        &self,
        recipient: &ServerName,
        copies: &[DuplicateKey],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        Ok(copies::acknowledge(self, recipient, copies, now).await?)
    }
}

/// What is damaged is not known to be there.
fn whole_whereabouts(
    connection: &Connection,
    key: DuplicateKey,
    now: Timestamp,
) -> rusqlite::Result<Whereabouts> {
    match whereabouts(connection, key, now) {
        Err(error) if is_damaged(&error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "an envelope that its sender asks for is damaged");
            Ok(Whereabouts::Unknown)
        }
        found => found,
    }
}

/// A held mailbox keeps what is past its time.
pub(super) const HELD: &str = "
    SELECT expires_at >= ?2 OR EXISTS (
        SELECT 1 FROM mailboxes WHERE mailboxes.mailbox = envelopes.mailbox AND held <> 0)
    FROM envelopes WHERE duplicate_key = ?1";

fn whereabouts(
    connection: &Connection,
    key: DuplicateKey,
    now: Timestamp,
) -> rusqlite::Result<Whereabouts> {
    let now = signed(now.as_millis());
    let held: Option<bool> = connection
        .prepare_cached(HELD)?
        .query_row(params![key.0, now], |row| row.get(0))
        .optional()?;
    Ok(match held {
        Some(true) => Whereabouts::Held,
        Some(false) => Whereabouts::Unknown,
        None if deposit::is_acknowledged(connection, key)? => Whereabouts::Acknowledged,
        None => Whereabouts::Unknown,
    })
}
