//! The own key document: minted for longer than mail may wait, served, and left along with every deposit.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::Identity;
use restante_federation_proto::{Clock, KeyDocument, SigningKey, Timestamp, mint};
use restante_relay_api::limits::{MEMORY_BEYOND_TIME_TO_LIVE, TIME_TO_LIVE};
use restante_sqlite::rusqlite::OptionalExtension;
use restante_sqlite::{Database, StoreError};

use crate::homeserver::Homeserver;

/// How long a document is valid: whoever collects at the last moment must still find it so.
const VALIDITY: Duration = TIME_TO_LIVE.saturating_add(MEMORY_BEYOND_TIME_TO_LIVE);

/// A document is minted anew when it is older than this.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// How long the homeserver may take to show its own document; mail waits for it.
const HOMESERVER_WAIT: Duration = Duration::from_secs(3);

/// The newest own document.
pub(crate) struct OwnKeys {
    identity: Identity,
    homeserver: Homeserver,
    database: Database,
    clock: Arc<dyn Clock>,
    newest: Mutex<Option<KeyDocument>>,
}

impl OwnKeys {
    /// Reads the document that was minted last.
    pub(crate) async fn open(
        identity: Identity,
        homeserver: Homeserver,
        database: Database,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let raw = database
            .read(|connection| {
                connection
                    .query_row("SELECT document FROM own_key_document", [], |row| {
                        row.get::<_, Vec<u8>>(0)
                    })
                    .optional()
            })
            .await?;
        let newest = raw.and_then(|raw| KeyDocument::parse(raw.into()).ok());
        Ok(Self { identity, homeserver, database, clock, newest: Mutex::new(newest) })
    }

    /// The document, valid for the time to live and a week more; minted anew when less than that minus a day remains.
    pub(crate) async fn document(&self) -> KeyDocument {
        let now = self.clock.now();
        let newest = self.newest();
        match newest {
            Some(document) if is_current(&document, &self.identity, now) => document,
            before => self.mint(before, now).await,
        }
    }

    /// Keeps the homeserver's retired keys; those of the document before when the homeserver can't be asked.
    async fn mint(&self, before: Option<KeyDocument>, now: Timestamp) -> KeyDocument {
        let asked = tokio::time::timeout(HOMESERVER_WAIT, self.homeserver.key_document()).await;
        let own_name = &self.identity.server_name;
        let predecessor = asked.ok().flatten().or(before);
        let predecessor = predecessor.filter(|document| document.server_name() == own_name);
        let until = now.after(VALIDITY);
        let document = mint(own_name, &self.identity.key, predecessor.as_ref(), until);
        *self.lock() = Some(document.clone());
        tracing::info!(valid_until = until.as_millis(), "minted the own key document");
        self.save(document.raw().clone()).await;
        document
    }

    async fn save(&self, raw: Bytes) {
        let saved = self.database.write(move |connection| {
            connection.execute(
                "INSERT INTO own_key_document (only, document) VALUES (1, ?1)
                 ON CONFLICT (only) DO UPDATE SET document = excluded.document",
                [raw.as_ref()],
            )
        });
        if let Err(error) = saved.await {
            // Nothing is lost: the next start mints another.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the own key document was not kept"
            );
        }
    }

    fn newest(&self) -> Option<KeyDocument> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<KeyDocument>> {
        self.newest.lock().expect("nothing panics while it holds the document")
    }
}

/// Whether `document` speaks for the key in use, and for long enough.
fn is_current(document: &KeyDocument, identity: &Identity, now: Timestamp) -> bool {
    let key: &SigningKey = &identity.key;
    document.server_name() == &identity.server_name
        && document.verify_keys().get(key.id()) == Some(&key.public_key())
        && document.valid_until() >= now.after(VALIDITY - RENEWAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::TestSite;

    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn a_document_is_used_for_a_day_and_kept_over_a_restart() {
        let site = TestSite::new().await;
        let first = site.own_keys.document().await;
        assert_eq!(first.valid_until(), site.clock.now().after(37 * DAY));
        assert_eq!(first.server_name(), site.server_name());

        let site = site.restarted().await;
        site.clock.advance(DAY);
        assert_eq!(site.own_keys.document().await, first);
        site.clock.advance(Duration::from_secs(1));
        let second = site.own_keys.document().await;
        assert_eq!(second.valid_until(), site.clock.now().after(37 * DAY));
    }

    #[test]
    fn a_document_of_another_key_is_not_current() {
        let key = |seed| {
            let id = "ed25519:1".parse().unwrap();
            Arc::new(SigningKey::from_seed(id, &[seed; 32]))
        };
        let identity = |seed| Identity { server_name: "a.test".parse().unwrap(), key: key(seed) };
        let now = Timestamp::from_millis(1);
        let document = mint(&identity(1).server_name, &key(1), None, now.after(VALIDITY));
        assert!(is_current(&document, &identity(1), now));
        assert!(!is_current(&document, &identity(2), now));
    }
}
