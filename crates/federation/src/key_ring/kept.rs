//! What is believed: the store, a bounded cache before it, and the rule by which a document gets in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation_proto::{
    BelievedDocument, Evidence, KeyDocument, Replacement, ServerName, Timestamp, replacement,
};
use tokio::sync::Mutex as ChangeMutex;

use crate::bounded_map::BoundedMap;
use crate::key_store::{KeyStore, KeyStoreError};

/// Documents in memory; each has at most 64 KiB and mostly less than one.
const CACHED_MAX: usize = 1024;
/// What is confirmed is dated anew once it is so old; sooner would only cost writes.
const CONFIRMED_ANEW_AFTER: Duration = Duration::from_hours(24);

pub(super) struct Kept {
    store: Arc<dyn KeyStore>,
    cache: Mutex<BoundedMap<ServerName, Arc<BelievedDocument>>>,
    /// Held from reading to writing, so that what is decided is decided about what is there.
    changing: ChangeMutex<()>,
}

impl Kept {
    pub(super) fn new(store: Arc<dyn KeyStore>) -> Self {
        let cache = Mutex::new(BoundedMap::new(CACHED_MAX));
        Self { store, cache, changing: ChangeMutex::new(()) }
    }

    pub(super) async fn load(
        &self,
        server: &ServerName,
    ) -> Result<Option<Arc<BelievedDocument>>, KeyStoreError> {
        if let Some(cached) = self.cache().get(server) {
            return Ok(Some(cached.clone()));
        }
        let _changing = self.changing.lock().await;
        self.load_unchanging(server).await.or_else(|error| unless_damaged(server, error))
    }

    /// Takes `document` in if its evidence suffices; returns whether it is what is believed now.
    pub(super) async fn consider(
        &self,
        document: &KeyDocument,
        evidence: Evidence,
        now: Timestamp,
    ) -> Result<bool, KeyStoreError> {
        let Some(evidence) = evidence_of_name(document, evidence) else { return Ok(false) };
        let _changing = self.changing.lock().await;
        let server = document.server_name();
        let current = match (self.load_unchanging(server).await, evidence) {
            // Nothing that was kept is stronger than these.
            (Err(error), Evidence::Fetched | Evidence::NameIsKey) => unless_damaged(server, error)?,
            (current, _) => current?,
        };
        // What was learned by a clock that was ahead must not keep out all that is learned by a right one.
        let current = current.map(|current| match current.learned_at > now {
            true => Arc::new(BelievedDocument { learned_at: now, ..(*current).clone() }),
            false => current,
        });
        let candidate = BelievedDocument { document: document.clone(), evidence, learned_at: now };
        let Some(accepted) = accepted(current.as_deref(), candidate) else {
            return Ok(current.is_some_and(|current| current.document.raw() == document.raw()));
        };
        let is_believed = accepted.document.raw() == document.raw();
        self.put(accepted).await;
        Ok(is_believed)
    }

    /// Takes `document` in, whatever is believed.
    pub(super) async fn replace(
        &self,
        document: &KeyDocument,
        now: Timestamp,
    ) -> Result<(), KeyStoreError> {
        let evidence = evidence_of_name(document, Evidence::Fetched).unwrap_or(Evidence::Fetched);
        let _changing = self.changing.lock().await;
        let believed = BelievedDocument { document: document.clone(), evidence, learned_at: now };
        self.store.save(&believed).await?;
        self.remember(Arc::new(believed));
        Ok(())
    }

    pub(super) async fn forget(&self, server: &ServerName) -> Result<(), KeyStoreError> {
        let _changing = self.changing.lock().await;
        self.store.forget(server).await?;
        self.cache().remove(server);
        Ok(())
    }

    pub(super) async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError> {
        self.store.list().await
    }

    async fn load_unchanging(
        &self,
        server: &ServerName,
    ) -> Result<Option<Arc<BelievedDocument>>, KeyStoreError> {
        if let Some(cached) = self.cache().get(server) {
            return Ok(Some(cached.clone()));
        }
        let loaded = self.store.load(server).await?.map(Arc::new);
        if let Some(loaded) = &loaded {
            self.remember(loaded.clone());
        }
        Ok(loaded)
    }

    /// What the store can't take is believed all the same, until it leaves the cache. A name that is a key proves itself
    /// again at any time, and anybody can make up any number of such names: those are not stored.
    async fn put(&self, believed: BelievedDocument) {
        if believed.evidence != Evidence::NameIsKey
            && let Err(error) = self.store.save(&believed).await
        {
            let server = believed.document.server_name();
            tracing::warn!(%server, error = ?error.0, "key document kept in memory only");
        }
        self.remember(Arc::new(believed));
    }

    fn remember(&self, believed: Arc<BelievedDocument>) {
        self.cache().insert(believed.document.server_name().clone(), believed);
    }

    fn cache(&self) -> MutexGuard<'_, BoundedMap<ServerName, Arc<BelievedDocument>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can't be read is not believed, and whoever vouches is asked anew.
fn unless_damaged<T>(
    server: &ServerName,
    error: KeyStoreError,
) -> Result<Option<T>, KeyStoreError> {
    if !error.is_damage() {
        return Err(error);
    }
    let error = &error as &dyn std::error::Error;
    tracing::error!(%server, error, "the key document of a server is damaged; check the disk");
    Ok(None)
}

/// For a server that is named by its key, only that key's document counts, and then its name is the evidence.
fn evidence_of_name(document: &KeyDocument, evidence: Evidence) -> Option<Evidence> {
    match document.server_name().public_key() {
        None => Some(evidence),
        Some(key) if document.verify_keys().values().any(|listed| *listed == key) => {
            Some(Evidence::NameIsKey)
        }
        Some(_) => None,
    }
}

/// What is believed once `candidate` has been considered; `None` if that does not change.
fn accepted(
    current: Option<&BelievedDocument>,
    candidate: BelievedDocument,
) -> Option<BelievedDocument> {
    let Some(current) = current else {
        return (replacement(None, &candidate) == Replacement::Replace).then_some(candidate);
    };
    // A weaker document gets in only with the signature of a key that is believed, which makes it as good.
    let evidence = current.evidence.max(candidate.evidence);
    if replacement(Some(current), &candidate) == Replacement::Replace {
        return Some(BelievedDocument { evidence, ..candidate });
    }
    is_confirmation(current, &candidate)
        .then(|| BelievedDocument { learned_at: candidate.learned_at, ..current.clone() })
}

/// The same keys from as good a source: what is believed was learned again.
fn is_confirmation(current: &BelievedDocument, candidate: &BelievedDocument) -> bool {
    candidate.evidence >= current.evidence
        && candidate.document.verify_keys() == current.document.verify_keys()
        && candidate.learned_at.since(current.learned_at) >= CONFIRMED_ANEW_AFTER
}
