//! Where believed key documents are kept.

mod sqlite;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use restante_federation_proto::{BelievedDocument, ServerName};
use restante_sqlite::StoreError;

pub use sqlite::SqliteKeyStore;

/// Why a document was not kept or found.
#[derive(Debug, thiserror::Error)]
#[error("the key store is not available")]
pub struct KeyStoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl KeyStoreError {
    /// Whether what is stored is damaged: trying again helps nothing.
    pub(crate) fn is_damage(&self) -> bool {
        self.0.downcast_ref::<StoreError>().is_some_and(StoreError::is_damage)
    }
}

/// Keeps the believed document of each server. `replacement` has decided before `save` is called.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// The believed document of `server`.
    async fn load(&self, server: &ServerName) -> Result<Option<BelievedDocument>, KeyStoreError>;
    /// Puts `document` in the place of what was believed of its server; durable on return. A store that holds as many
    /// servers as it may refuses further ones.
    async fn save(&self, document: &BelievedDocument) -> Result<(), KeyStoreError>;
    /// Forgets what is believed of `server`.
    async fn forget(&self, server: &ServerName) -> Result<(), KeyStoreError>;
    /// All of them, by server name.
    async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError>;
}

/// In memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryKeyStore {
    documents: Mutex<BTreeMap<ServerName, BelievedDocument>>,
}

impl MemoryKeyStore {
    fn documents(&self) -> MutexGuard<'_, BTreeMap<ServerName, BelievedDocument>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryKeyStore {
    async fn load(&self, server: &ServerName) -> Result<Option<BelievedDocument>, KeyStoreError> {
        Ok(self.documents().get(server).cloned())
    }

    async fn save(&self, document: &BelievedDocument) -> Result<(), KeyStoreError> {
        let server = document.document.server_name().clone();
        self.documents().insert(server, document.clone());
        Ok(())
    }

    async fn forget(&self, server: &ServerName) -> Result<(), KeyStoreError> {
        self.documents().remove(server);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError> {
        Ok(self.documents().values().cloned().collect())
    }
}
