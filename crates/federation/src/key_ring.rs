//! The key ring: finds the keys of other servers, each with the strongest evidence to be had.

mod asking;
mod flights;
mod kept;
mod search;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use restante_federation_proto::{
    BelievedDocument, Clock, Evidence, KeyDocument, KeyId, NotaryResponse, PublicKey, ServerName,
    Timestamp,
};
use tokio::time::timeout;

use crate::bounded_map::BoundedMap;
use crate::exchange::{Exchange, Peer};
use crate::key_store::{KeyStore, KeyStoreError};
use crate::sign::Identity;
use asking::Asked;
use flights::Flights;
use kept::Kept;
use search::Want;

/// Servers of which is remembered when they were asked for last.
const ASKED_MAX: usize = 4096;
/// Servers that are keys whose key is kept decoded, at about 400 bytes each.
const NAMED_MAX: usize = 1024;
/// Servers that one notary request may ask about; the rest of a longer list is left out of the answer.
pub const NOTARY_SERVERS_MAX: usize = 100;
/// Look-ups at once for one notary request.
const NOTARY_LOOKUPS_MAX: usize = 8;
/// How long a notary request waits for one server before it gets what is kept. Homeservers wait ten seconds.
const NOTARY_WAIT_MAX: Duration = Duration::from_secs(8);

/// What a key is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A request that is made now: the document must be valid now.
    ValidNow,
    /// A signature made earlier: a key that is believed, its document expired or not.
    Believed,
    /// The same for mail that says when it was signed: a key that was retired before does not count, for whoever
    /// found it could sign as the server for ever.
    SignedAt(Timestamp),
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyLookupError {
    /// The server's believed document, fetched now, does not list that key, or has retired it. Permanent.
    #[error("{server} has no key {key_id}")]
    NoSuchKey {
        /// The server.
        server: ServerName,
        /// The key.
        key_id: KeyId,
    },
    /// Nobody who is believed could be asked. Temporary.
    #[error("the keys of {server} can't be had: {reason}")]
    Unreachable {
        /// The server.
        server: ServerName,
        /// Whom we asked and what came of it.
        reason: String,
        /// When to ask again.
        retry_after: Duration,
    },
}

/// A notary that the operator named: its signature on a document vouches for it.
#[derive(Debug, Clone)]
pub struct Notary {
    /// The notary. Its own key comes by the same ladder.
    pub peer: Peer,
}

/// Somebody local whose word vouches for a document: the own homeserver's database.
#[async_trait]
pub trait Voucher: Send + Sync + 'static {
    /// The documents that it has for `server`; none if it has none or can't be asked.
    async fn documents(&self, server: &ServerName) -> Vec<KeyDocument>;
}

/// What a key ring works with.
pub struct KeyRingParts {
    /// Who we are (a notary countersigns with it).
    pub identity: Identity,
    /// How to reach servers.
    pub exchange: Arc<dyn Exchange>,
    /// Where documents are kept.
    pub store: Arc<dyn KeyStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Notaries, asked when the server itself can't be.
    pub notaries: Vec<Notary>,
    /// Local vouchers, asked before notaries.
    pub vouchers: Vec<Arc<dyn Voucher>>,
}

/// The key ring.
pub struct KeyRing {
    identity: Identity,
    exchange: Arc<dyn Exchange>,
    clock: Arc<dyn Clock>,
    notaries: Vec<Notary>,
    vouchers: Vec<Arc<dyn Voucher>>,
    kept: Kept,
    asked: Mutex<BoundedMap<ServerName, Asked>>,
    /// Keys of servers that are named by them.
    named: Mutex<BoundedMap<ServerName, PublicKey>>,
    flights: Flights,
}

impl KeyRing {
    /// A key ring over these parts.
    pub fn new(parts: KeyRingParts) -> Self {
        Self {
            identity: parts.identity,
            exchange: parts.exchange,
            clock: parts.clock,
            notaries: parts.notaries,
            vouchers: parts.vouchers,
            kept: Kept::new(parts.store),
            asked: Mutex::new(BoundedMap::new(ASKED_MAX)),
            named: Mutex::new(BoundedMap::new(NAMED_MAX)),
            flights: Flights::new(),
        }
    }

    /// The key `key_id` of `server`: by name, from what is kept, else fetched (single flight, negative cache).
    pub async fn key(
        &self,
        server: &ServerName,
        key_id: &KeyId,
        freshness: Freshness,
    ) -> Result<PublicKey, KeyLookupError> {
        if let Some(key) = self.key_named_by(server) {
            return Ok(key);
        }
        let own = &self.identity;
        if *server == own.server_name && key_id == own.key.id() {
            return Ok(own.key.public_key());
        }
        let want = Want::Key { key_id, freshness };
        let found = self.search(server, want).await?;
        want.key_in(&found, self.clock.now()).ok_or_else(|| search::expired_meanwhile(server))
    }

    /// Whether a key of `server` is known, be it its name; asks nobody.
    pub async fn knows(&self, server: &ServerName) -> bool {
        self.key_named_by(server).is_some() || self.kept(server).await.is_some()
    }

    /// What [`ServerName::public_key`] says, decoded once.
    fn key_named_by(&self, server: &ServerName) -> Option<PublicKey> {
        let named = || self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = named().get(server) {
            return Some(key.clone());
        }
        let key = server.public_key()?;
        named().insert(server.clone(), key.clone());
        Some(key)
    }

    /// The believed document of `server` as it is kept; asks nobody.
    pub async fn believed(&self, server: &ServerName) -> Option<BelievedDocument> {
        self.kept(server).await.map(Arc::unwrap_or_clone)
    }

    async fn kept(&self, server: &ServerName) -> Option<Arc<BelievedDocument>> {
        match self.kept.load(server).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%server, error = ?error.0, "cannot read what is believed");
                None
            }
        }
    }

    /// The believed document of `server` after asking the server itself, vouchers and notaries, unless what is kept
    /// is valid beyond `valid_until_min`. Falls back to what is kept.
    pub async fn refreshed(
        &self,
        server: &ServerName,
        valid_until_min: Timestamp,
    ) -> Result<BelievedDocument, KeyLookupError> {
        match self.search(server, Want::ValidBeyond(valid_until_min)).await {
            Ok(found) => Ok(Arc::unwrap_or_clone(found)),
            Err(error) => self.believed(server).await.ok_or(error),
        }
    }

    /// Considers a document that came with mail: it counts only if a believed key of the same server signed it, and
    /// then prolongs or rotates what is believed. Returns whether it is believed now.
    pub async fn offer(&self, document: &KeyDocument) -> bool {
        self.consider(document, Evidence::FirstContact).await
    }

    /// Considers a document of whose keys one verifies its server's signature on an event that the own homeserver
    /// holds. Returns whether it is believed now.
    pub async fn offer_proven_by_event(&self, document: &KeyDocument) -> bool {
        self.consider(document, Evidence::Event).await
    }

    /// Considers a document for whose server the operator vouches. Returns whether it is believed now.
    pub async fn offer_vouched(&self, document: &KeyDocument) -> bool {
        self.consider(document, Evidence::Vouched).await
    }

    async fn consider(&self, document: &KeyDocument, evidence: Evidence) -> bool {
        let considered = self.kept.consider(document, evidence, self.clock.now()).await;
        considered.unwrap_or_else(|error| {
            let server = document.server_name();
            tracing::warn!(%server, error = ?error.0, "cannot consider a key document");
            false
        })
    }

    /// An operator's word: believe `document` as if fetched.
    pub async fn trust(&self, document: &KeyDocument) -> Result<(), KeyStoreError> {
        self.kept.replace(document, self.clock.now()).await
    }

    /// Forgets what is believed of `server`.
    pub async fn forget(&self, server: &ServerName) -> Result<(), KeyStoreError> {
        self.forget_asking(server);
        self.kept.forget(server).await
    }

    /// Everything believed.
    pub async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError> {
        self.kept.list().await
    }

    /// The notary answer of this server for `servers`, for the own homeserver: believed documents, countersigned; refreshed
    /// first where they expire before what is asked (server-server API, `/_matrix/key/v2/query`).
    pub async fn notary_answer(&self, servers: &[(ServerName, Timestamp)]) -> Bytes {
        self.countersigned_answer(servers, Evidence::Event).await
    }

    /// The same for anybody: only what was fetched from the server itself, or that its name proves. What others vouch for is
    /// not passed on as if it had been seen here.
    pub async fn public_notary_answer(&self, servers: &[(ServerName, Timestamp)]) -> Bytes {
        self.countersigned_answer(servers, Evidence::Fetched).await
    }

    async fn countersigned_answer(
        &self,
        servers: &[(ServerName, Timestamp)],
        evidence_min: Evidence,
    ) -> Bytes {
        let asked = servers.iter().take(NOTARY_SERVERS_MAX).cloned();
        let documents: Vec<Bytes> = stream::iter(asked)
            .map(|(server, valid_until_min)| async move {
                // What is kept on weaker evidence does not save asking the server itself.
                let kept = self.believed(&server).await;
                let weaker = kept.filter(|kept| kept.evidence < evidence_min);
                let valid_until_min = weaker.map_or(valid_until_min, |kept| {
                    valid_until_min.max(kept.document.valid_until())
                });
                let refreshed = self.refreshed(&server, valid_until_min);
                match timeout(NOTARY_WAIT_MAX, refreshed).await {
                    Ok(found) => found.ok(),
                    Err(_) => self.believed(&server).await,
                }
            })
            .buffered(NOTARY_LOOKUPS_MAX)
            .filter_map(async |found| {
                let found = found.filter(|found| found.evidence >= evidence_min)?;
                Some(self.countersigned(&found.document))
            })
            .collect()
            .await;
        NotaryResponse::to_json(&documents).into()
    }

    fn countersigned(&self, document: &KeyDocument) -> Bytes {
        document.countersigned(&self.identity.server_name, &self.identity.key)
    }
}
