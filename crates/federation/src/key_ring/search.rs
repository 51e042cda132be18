//! The search for keys: what is kept, then the server itself, then those who vouch for it.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use restante_federation_proto::{
    BelievedDocument, Evidence, KeyDocument, KeyId, PublicKey, ServerName, Timestamp,
};
use tokio::time::timeout;

use super::asking::{Asked, Outcome};
use super::flights::{Lane, PLACE_WAIT_MAX};
use super::sources::{ask_notary, fetch, signed_with};
use super::{Freshness, KeyLookupError, KeyRing, Notary};
use crate::bounded_map::BoundedMap;
use crate::exchange::Peer;
use crate::key_store::KeyStoreError;

/// How long a local voucher may take.
const VOUCHER_TIMEOUT: Duration = Duration::from_secs(5);
/// When the store can't be read: until the next attempt.
const STORE_PAUSE: Duration = Duration::from_secs(10);
/// Of why nobody could help.
const REASON_BYTES_MAX: usize = 500;

/// What a document is searched for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want<'a> {
    /// A key, for requests or for older signatures.
    Key { key_id: &'a KeyId, freshness: Freshness },
    /// Validity beyond that moment.
    ValidBeyond(Timestamp),
}

/// Whom a search may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Everybody,
    /// For the keys of a notary: otherwise two notaries would wait for each other.
    AllButNotaries,
}

impl Want<'_> {
    /// The key that is wanted, if `believed` has it for this use.
    pub(super) fn key_in(&self, believed: &BelievedDocument, now: Timestamp) -> Option<PublicKey> {
        let Self::Key { key_id, freshness } = self else { return None };
        let document = &believed.document;
        match freshness {
            Freshness::ValidNow => document
                .key_valid_at(key_id, now)
                .filter(|_| now <= believed.useful_until())
                .cloned(),
            Freshness::Believed => {
                let retired = || document.old_verify_keys().get(key_id).map(|(key, _)| key);
                document.verify_keys().get(key_id).or_else(retired).cloned()
            }
            Freshness::SignedAt(moment) => {
                let retired = || {
                    let (key, until) = document.old_verify_keys().get(key_id)?;
                    (moment <= until).then_some(key)
                };
                document.verify_keys().get(key_id).or_else(retired).cloned()
            }
        }
    }

    fn is_met_by(&self, believed: &BelievedDocument, now: Timestamp) -> bool {
        match self {
            Self::Key { .. } => self.key_in(believed, now).is_some(),
            Self::ValidBeyond(moment) => believed.document.valid_until() > *moment,
        }
    }

    fn key_id(&self) -> Option<&KeyId> {
        match self {
            Self::Key { key_id, .. } => Some(key_id),
            Self::ValidBeyond(_) => None,
        }
    }

    fn valid_until_min(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Key { freshness: Freshness::ValidNow, .. } => now,
            Self::Key { .. } => Timestamp::EPOCH,
            Self::ValidBeyond(moment) => *moment,
        }
    }
}

type Found = Result<Arc<BelievedDocument>, KeyLookupError>;

impl KeyRing {
    /// The believed document of `server` that meets `want`, kept or asked for.
    pub(super) async fn search(&self, server: &ServerName, want: Want<'_>) -> Found {
        if let Some(kept) = self.kept_for(server, want).await? {
            return Ok(kept);
        }
        let _turn = self.flights.turn(server).await;
        if let Some(kept) = self.kept_for(server, want).await? {
            return Ok(kept);
        }
        if let Some(refusal) = self.too_soon(server, want).await {
            return Err(refusal);
        }
        let lane = self.lane(server, want).await;
        let Some(_place) = self.flights.place(lane).await else {
            return Err(unreachable(server, "too many look-ups at once", PLACE_WAIT_MAX));
        };
        self.ask(server, want, Reach::Everybody).await
    }

    async fn lane(&self, server: &ServerName, want: Want<'_>) -> Lane {
        match want {
            Want::ValidBeyond(_) => Lane::Questions,
            Want::Key { .. } if self.kept.load(server).await.ok().flatten().is_some() => {
                Lane::Known
            }
            Want::Key { .. } => Lane::Strangers,
        }
    }

    async fn kept_for(
        &self,
        server: &ServerName,
        want: Want<'_>,
    ) -> Result<Option<Arc<BelievedDocument>>, KeyLookupError> {
        let kept = self.kept.load(server).await.map_err(|error| no_store(server, &error))?;
        let now = self.clock.now();
        Ok(kept.filter(|kept| want.is_met_by(kept, now)))
    }

    /// The refusal for what was asked for a short while ago in vain.
    async fn too_soon(&self, server: &ServerName, want: Want<'_>) -> Option<KeyLookupError> {
        let now = self.clock.now();
        let asked = self.asked().get(server).cloned()?;
        let wait = asked.wait_at(now)?;
        Some(match asked.outcome {
            Outcome::Failed(reason) => unreachable(server, &reason, wait),
            Outcome::Answered if self.may_be_newer(server, want).await => {
                unreachable(server, "it did not list that key a short while ago", wait)
            }
            Outcome::Answered => self.refusal_of_answer(server, want, wait).await,
        })
    }

    /// Whether the server may have got the key since it was asked: a change of keys is not held against it.
    async fn may_be_newer(&self, server: &ServerName, want: Want<'_>) -> bool {
        let kept = self.kept.load(server).await.ok().flatten();
        let Some((kept, key_id)) = kept.zip(want.key_id()) else { return false };
        let document = &kept.document;
        !document.verify_keys().contains_key(key_id)
            && !document.old_verify_keys().contains_key(key_id)
    }

    /// Why an answer of the server itself does not help.
    async fn refusal_of_answer(
        &self,
        server: &ServerName,
        want: Want<'_>,
        wait: Duration,
    ) -> KeyLookupError {
        let kept = self.kept.load(server).await.ok().flatten();
        let listed = |key_id: &KeyId| {
            kept.is_some_and(|kept| kept.document.verify_keys().contains_key(key_id))
        };
        match want.key_id() {
            Some(key_id) if !listed(key_id) => {
                KeyLookupError::NoSuchKey { server: server.clone(), key_id: key_id.clone() }
            }
            _ => unreachable(server, "the key document that it serves is not valid", wait),
        }
    }

    async fn ask(&self, server: &ServerName, want: Want<'_>, reach: Reach) -> Found {
        let mut tried = Vec::new();
        let answered = match fetch(self.exchange.as_ref(), &self.peer(server)).await {
            Ok(document) => self.take_in(&document, Evidence::Fetched).await,
            Err(reason) => {
                tried.push(reason);
                false
            }
        };
        if self.kept_for(server, want).await?.is_none() {
            self.ask_vouchers(server).await;
        }
        if reach == Reach::Everybody && self.kept_for(server, want).await?.is_none() {
            tried.extend(self.ask_notaries(server, want).await);
        }
        let outcome =
            if answered { Outcome::Answered } else { Outcome::Failed(shortened(tried.join("; "))) };
        let wait = self.note(server, outcome.clone());
        match (self.kept_for(server, want).await?, outcome) {
            (Some(found), _) => Ok(found),
            (None, Outcome::Answered) => Err(self.refusal_of_answer(server, want, wait).await),
            (None, Outcome::Failed(reason)) => {
                tracing::debug!(%server, reason, "keys can't be had");
                Err(unreachable(server, &reason, wait))
            }
        }
    }

    /// The operator may have given a notary a URL.
    fn peer(&self, server: &ServerName) -> Peer {
        let notary = self.notaries.iter().find(|notary| notary.peer.name == *server);
        notary.map_or_else(|| server.clone().into(), |notary| notary.peer.clone())
    }

    async fn ask_vouchers(&self, server: &ServerName) {
        for voucher in &self.vouchers {
            let documents = timeout(VOUCHER_TIMEOUT, voucher.documents(server)).await;
            let about = |document: &&KeyDocument| document.server_name() == server;
            for document in documents.unwrap_or_default().iter().filter(about) {
                self.take_in(document, Evidence::Vouched).await;
            }
        }
    }

    /// Asks all notaries at once; returns why those who did not help did not.
    async fn ask_notaries(&self, server: &ServerName, want: Want<'_>) -> Vec<String> {
        let others = self.notaries.iter().filter(|notary| notary.peer.name != *server);
        let asked = others.map(|notary| self.ask_one_notary(notary, server, want));
        join_all(asked).await.into_iter().filter_map(Result::err).collect()
    }

    async fn ask_one_notary(
        &self,
        notary: &Notary,
        server: &ServerName,
        want: Want<'_>,
    ) -> Result<(), String> {
        let valid_until_min = want.valid_until_min(self.clock.now());
        let (exchange, peer) = (self.exchange.as_ref(), &notary.peer);
        let documents = ask_notary(exchange, peer, server, want.key_id(), valid_until_min).await?;
        if documents.is_empty() {
            return Err(format!("{} does not know its keys", peer.name));
        }
        for document in &documents {
            if !self.is_vouched_by(document, peer).await {
                return Err(format!("{} did not sign with a key that is believed", peer.name));
            }
            self.take_in(document, Evidence::Vouched).await;
        }
        Ok(())
    }

    async fn is_vouched_by(&self, document: &KeyDocument, notary: &Peer) -> bool {
        for key_id in signed_with(document, &notary.name) {
            // Boxed, because this is the search within the search.
            let key = Box::pin(self.notary_key(&notary.name, &key_id)).await;
            if key.is_some_and(|key| document.is_signed_by(&notary.name, &key_id, &key)) {
                return true;
            }
        }
        false
    }

    /// Takes no turn: whoever looks for this notary's keys may be waiting for a notary in turn.
    async fn notary_key(&self, notary: &ServerName, key_id: &KeyId) -> Option<PublicKey> {
        if let Some(key) = notary.public_key() {
            return Some(key);
        }
        let want = Want::Key { key_id, freshness: Freshness::ValidNow };
        let found = match self.kept_for(notary, want).await.ok()? {
            Some(kept) => kept,
            None if self.too_soon(notary, want).await.is_some() => return None,
            None => self.ask(notary, want, Reach::AllButNotaries).await.ok()?,
        };
        want.key_in(&found, self.clock.now())
    }

    /// Whether the document could be considered at all.
    async fn take_in(&self, document: &KeyDocument, evidence: Evidence) -> bool {
        match self.kept.consider(document, evidence, self.clock.now()).await {
            Ok(_) => true,
            Err(error) => {
                let server = document.server_name();
                tracing::warn!(%server, error = ?error.0, "cannot consider a key document");
                false
            }
        }
    }

    /// Remembers what came of asking; returns how long nobody is to be asked.
    fn note(&self, server: &ServerName, outcome: Outcome) -> Duration {
        let now = self.clock.now();
        let mut asked = self.asked();
        let next = Asked::next(asked.get(server), outcome, now);
        let wait = next.wait_at(now).unwrap_or_default();
        asked.insert(server.clone(), next);
        wait
    }

    pub(super) fn forget_asking(&self, server: &ServerName) {
        self.asked().remove(server);
    }

    fn asked(&self) -> MutexGuard<'_, BoundedMap<ServerName, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreachable(server: &ServerName, reason: &str, retry_after: Duration) -> KeyLookupError {
    KeyLookupError::Unreachable { server: server.clone(), reason: reason.to_owned(), retry_after }
}

/// It was valid when it was found.
pub(super) fn expired_meanwhile(server: &ServerName) -> KeyLookupError {
    unreachable(server, "its key document expires at this moment", Duration::ZERO)
}

/// Errors quote what peers sent, which may be long, and are remembered for many servers.
fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

fn no_store(server: &ServerName, error: &KeyStoreError) -> KeyLookupError {
    tracing::warn!(%server, error = ?error.0, "cannot read the key store");
    unreachable(server, "the key store is not available", STORE_PAUSE)
}
