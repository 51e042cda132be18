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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use restante_mailbox::{
        Invite, InviteId, InviteOutcome, Left, MemoryStore, OpenInvite, Revoked,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// Counts how often it is asked who is registered.
    #[derive(Default)]
    struct Counting {
        store: MemoryStore,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Registry for Counting {
        async fn registration(
            &self,
            recipient: &ServerName,
        ) -> Result<Option<Registration>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.store.registration(recipient).await
        }

        async fn register(
            &self,
            registration: Registration,
            invite: Option<InviteHash>,
            now: Timestamp,
        ) -> Result<RegisterOutcome, StoreError> {
            self.store.register(registration, invite, now).await
        }

        async fn leave(
            &self,
            recipient: &ServerName,
            mail: LeftMail,
            now: Timestamp,
        ) -> Result<Left, StoreError> {
            self.store.leave(recipient, mail, now).await
        }

        async fn invite(&self, invite: Invite) -> Result<InviteOutcome, StoreError> {
            self.store.invite(invite).await
        }

        async fn invites(&self) -> Result<Vec<OpenInvite>, StoreError> {
            self.store.invites().await
        }

        async fn revoke_invite(&self, id: InviteId) -> Result<Revoked, StoreError> {
            self.store.revoke_invite(id).await
        }
    }

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn registration(server: &str, block: &[&str]) -> Registration {
        Registration {
            recipient: name(server),
            record: Bytes::from_static(b"{}"),
            senders: StoredSenders {
                allow: None,
                block: block.iter().map(|pattern| (*pattern).to_owned()).collect(),
            },
            time_to_live: None,
            registered_at: NOW,
        }
    }

    #[tokio::test]
    async fn the_store_is_asked_once_for_each_server_and_again_after_a_change() {
        let registry = Arc::new(Counting::default());
        let registrations = Registrations::new(registry.clone());
        let b = name("b.example");
        for _ in 0..5 {
            assert_eq!(registrations.terms(&b).await.unwrap(), None);
        }
        assert_eq!(registry.asked.load(Ordering::SeqCst), 1);

        let change = registrations.change().await;
        change.register(registration("b.example", &["evil.example"]), None, NOW).await.unwrap();
        for _ in 0..5 {
            let terms = registrations.terms(&b).await.unwrap().unwrap();
            assert!(!terms.senders.permit(&name("evil.example")));
            assert!(terms.senders.permit(&name("a.example")));
        }
        assert_eq!(registry.asked.load(Ordering::SeqCst), 2);

        change.leave(&b, LeftMail::Keep, NOW).await.unwrap();
        assert_eq!(registrations.terms(&b).await.unwrap(), None);
        assert_eq!(registry.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn any_number_of_strangers_does_not_drive_out_who_is_registered() {
        let registry = Arc::new(Counting::default());
        let registrations = Registrations::new(registry.clone());
        registrations
            .change()
            .await
            .register(registration("b.example", &[]), None, NOW)
            .await
            .unwrap();
        let b = name("b.example");
        assert!(registrations.terms(&b).await.unwrap().is_some());
        for number in 0..2 * UNREGISTERED_MAX {
            registrations.terms(&name(&format!("s{number}.example"))).await.unwrap();
        }
        let asked = registry.asked.load(Ordering::SeqCst);
        assert!(registrations.terms(&b).await.unwrap().is_some());
        assert_eq!(registry.asked.load(Ordering::SeqCst), asked);
    }

    #[test]
    fn a_list_that_cannot_be_read_lets_nobody_in() {
        let unreadable = terms(&registration("b.example", &["not a pattern"]));
        assert!(!unreadable.senders.permit(&name("a.example")));
    }
}
