//! Who is registered, kept at hand: the store is asked once for each server, and again after a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use restante_federation::BoundedMap;
use restante_federation_proto::{ServerGlob, ServerName, Timestamp};
use restante_mailbox::{
    InviteHash, LeftMail, RegisterOutcome, Registration, Registry, Senders as StoredSenders,
    StoreError,
};
use restante_relay_api::Senders;
use tokio::sync::{Mutex as ChangeMutex, MutexGuard as ChangeGuard};

use crate::admission::Terms;
use crate::signed_at::LastSigned;

/// Registered servers in memory, those that were asked for last. Most lists of senders are short; the longest have 64 KiB.
const REGISTERED_MAX: usize = 1024;
/// Servers that are known not to be registered; strangers can make up any number, which must not drive out the others.
const UNREGISTERED_MAX: usize = 8192;

/// The registry, and what is known of it.
pub(crate) struct Registrations {
    registry: Arc<dyn Registry>,
    known: Mutex<Known>,
    changing: ChangeMutex<LastSigned>,
}

struct Known {
    registered: BoundedMap<ServerName, Arc<Terms>>,
    unregistered: BoundedMap<ServerName, ()>,
    /// What was read before a change is not kept after it.
    changes: u64,
}

/// One who may change registrations, and nobody else meanwhile.
pub(crate) struct Change<'a> {
    registrations: &'a Registrations,
    last_signed: ChangeGuard<'a, LastSigned>,
}

impl Registrations {
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        let known = Known {
            registered: BoundedMap::new(REGISTERED_MAX),
            unregistered: BoundedMap::new(UNREGISTERED_MAX),
            changes: 0,
        };
        Self { registry, known: Mutex::new(known), changing: ChangeMutex::default() }
    }

    /// What `server` asked for when it registered; `None` if it is not.
    pub(crate) async fn terms(
        &self,
        server: &ServerName,
    ) -> Result<Option<Arc<Terms>>, StoreError> {
        let changes = {
            let mut known = self.known();
            if let Some(terms) = known.registered.get(server) {
                return Ok(Some(terms.clone()));
            }
            if known.unregistered.get(server).is_some() {
                return Ok(None);
            }
            known.changes
        };
        let terms = self.registry.registration(server).await?.map(|found| Arc::new(terms(&found)));
        let mut known = self.known();
        if known.changes == changes {
            match &terms {
                Some(terms) => known.registered.insert(server.clone(), terms.clone()),
                None => known.unregistered.insert(server.clone(), ()),
            }
        }
        Ok(terms)
    }

    /// The registration as it is stored.
    pub(crate) async fn stored(
        &self,
        server: &ServerName,
    ) -> Result<Option<Registration>, StoreError> {
        self.registry.registration(server).await
    }

    /// Whether an invite that is not used yet has this hash and names `server`.
    pub(crate) async fn invite_names(
        &self,
        hash: InviteHash,
        server: &ServerName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let invites = self.registry.invites().await?;
        Ok(invites.iter().map(|open| &open.invite).any(|invite| {
            invite.hash == hash && invite.server.as_ref() == Some(server) && invite.expires_at > now
        }))
    }

    /// Waits until nobody else changes registrations. They are few, and each is decided by what is there.
    pub(crate) async fn change(&self) -> Change<'_> {
        Change { registrations: self, last_signed: self.changing.lock().await }
    }

    fn forget(&self, server: &ServerName) {
        let mut known = self.known();
        known.changes += 1;
        known.registered.remove(server);
        known.unregistered.remove(server);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// What was signed last by whom.
    pub(crate) fn last_signed(&self) -> &LastSigned {
        &self.last_signed
    }

    pub(crate) async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError> {
        let server = registration.recipient.clone();
        let outcome = self.registrations.registry.register(registration, invite, now).await;
        // Also after an error: what the disk did not confirm may be there all the same.
        self.registrations.forget(&server);
        outcome
    }

    /// Returns how many envelopes were dropped.
    pub(crate) async fn leave(
        &self,
        server: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let left = self.registrations.registry.leave(server, mail, now).await;
        self.registrations.forget(server);
        Ok(left?.dropped)
    }
}

/// Reads what was checked before it was stored. A list that can't be read lets nobody in: a block that is left out would.
fn terms(registration: &Registration) -> Terms {
    let StoredSenders { allow, block } = &registration.senders;
    let patterns = |texts: &[String]| {
        texts.iter().map(|text| text.parse::<ServerGlob>().ok()).collect::<Option<Vec<_>>>()
    };
    let allow =
        allow.as_ref().map_or_else(|| Some(Senders::default().allow), |allow| patterns(allow));
    let senders = match (allow, patterns(block)) {
        (Some(allow), Some(block)) => Senders { allow, block },
        _ => {
            let server = &registration.recipient;
            tracing::error!(mailbox = %server, "a list of senders can't be read; nobody may leave mail there");
            Senders { allow: Vec::new(), block: Vec::new() }
        }
    };
    Terms { senders, time_to_live: registration.time_to_live }
}

/// The form that is stored.
pub(crate) fn stored_senders(senders: &Senders) -> StoredSenders {
    let texts = |patterns: &[ServerGlob]| {
        patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>()
    };
    StoredSenders { allow: Some(texts(&senders.allow)), block: texts(&senders.block) }
}
