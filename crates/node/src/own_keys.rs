//! The own key document: minted for longer than mail may wait, served, and left along with every deposit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::Identity;
use restante_federation_proto::{
    Clock, KeyDocument, KeyId, PublicKey, SigningKey, Timestamp, mint_signed_by,
};
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
    others: Vec<SigningKey>,
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
        let others = Vec::new();
        Ok(Self { identity, others, homeserver, database, clock, newest: Mutex::new(newest) })
    }

    /// Lists `others` in the documents as well, and signs with them: keys that the identity's own key replaces, or that
    /// will replace it. A server that is never online together with ours learns of a change of keys in no other way.
    pub(crate) fn signed_by_others(self, others: Vec<SigningKey>) -> Self {
        Self { others, ..self }
    }

    /// The document, valid for the time to live and a week more; minted anew when less than that minus a day remains.
    pub(crate) async fn document(&self) -> KeyDocument {
        let now = self.clock.now();
        let newest = self.newest();
        match newest {
            Some(document) if self.is_current(&document, now) => document,
            before => self.mint(before, now).await,
        }
    }

    /// Keeps the homeserver's retired keys; when the homeserver can't be asked, those of the document before.
    async fn mint(&self, before: Option<KeyDocument>, now: Timestamp) -> KeyDocument {
        let asked = tokio::time::timeout(HOMESERVER_WAIT, self.homeserver.key_document()).await;
        let own_name = &self.identity.server_name;
        let is_own = |document: &KeyDocument| document.server_name() == own_name;
        let retired = match (asked.ok().flatten(), before.filter(is_own)) {
            (Some(of_homeserver), _) => of_homeserver.old_verify_keys().clone(),
            (None, Some(before)) => all_retired(&before, now),
            (None, None) => BTreeMap::new(),
        };
        let until = now.after(VALIDITY);
        let document = mint_signed_by(own_name, &self.keys(), retired, until);
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

    /// Whether `document` speaks for the keys in use, and for long enough.
    fn is_current(&self, document: &KeyDocument, now: Timestamp) -> bool {
        let keys = self.keys().into_iter();
        let in_use: BTreeMap<_, _> = keys.map(|key| (key.id().clone(), key.public_key())).collect();
        document.server_name() == &self.identity.server_name
            && *document.verify_keys() == in_use
            && document.valid_until() >= now.after(VALIDITY - RENEWAL)
    }

    fn keys(&self) -> Vec<&SigningKey> {
        [&*self.identity.key].into_iter().chain(&self.others).collect()
    }

    fn newest(&self) -> Option<KeyDocument> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<KeyDocument>> {
        self.newest.lock().expect("nothing panics while it holds the document")
    }
}

/// All keys of the document before as retired keys, so that mail which they signed is believed: those that it lists in
/// use until `now`, if they are not in use any more.
fn all_retired(before: &KeyDocument, now: Timestamp) -> BTreeMap<KeyId, (PublicKey, Timestamp)> {
    let mut retired = before.old_verify_keys().clone();
    let listed = before.verify_keys().iter();
    retired.extend(listed.map(|(key_id, key)| (key_id.clone(), (key.clone(), now))));
    retired
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

    #[tokio::test(start_paused = true)]
    async fn a_change_of_keys_is_shown_at_once_and_the_key_before_is_remembered_as_retired() {
        let site = TestSite::new().await;
        let first = site.own_keys.document().await;
        site.clock.advance(DAY / 24);

        let changed = own_keys(&site, &key("2")).await.document().await;

        let keys = |document: &KeyDocument| document.verify_keys().clone();
        assert_eq!(keys(&changed).keys().collect::<Vec<_>>(), [key("2").id()]);
        // The homeserver can't be asked, as when both start at once.
        let retired = changed.old_verify_keys().clone().into_iter();
        let now = site.clock.now();
        let expected = keys(&first).into_iter().map(|(key_id, key)| (key_id, (key, now)));
        assert_eq!(retired.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(own_keys(&site, &key("2")).await.document().await, changed);
    }

    #[tokio::test(start_paused = true)]
    async fn other_keys_of_the_key_file_are_listed_and_sign_as_well() {
        let site = TestSite::new().await;
        let first = site.own_keys.document().await;
        let before = (*site.identity.key).clone();

        let changed = own_keys(&site, &key("2")).await.signed_by_others(vec![before.clone()]);
        let changed = changed.document().await;

        assert_eq!(changed.verify_keys().len(), 2);
        for key in [&before, &key("2")] {
            assert!(changed.is_signed_by(site.server_name(), key.id(), &key.public_key()));
        }
        assert!(changed.old_verify_keys().is_empty(), "{first:?} lists keys that are still in use");
    }

    fn key(version: &str) -> SigningKey {
        SigningKey::from_seed(format!("ed25519:{version}").parse().unwrap(), &[2; 32])
    }

    /// The site's own keys after a restart with `key`.
    async fn own_keys(site: &TestSite, key: &SigningKey) -> OwnKeys {
        let identity = Identity { key: Arc::new(key.clone()), ..site.identity.clone() };
        let (homeserver, database) = (site.homeserver.clone(), site.database.clone());
        OwnKeys::open(identity, homeserver, database, site.clock.clone()).await.unwrap()
    }
}
