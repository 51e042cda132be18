//! Who is registered, kept at hand: the store is asked once for each server, and again after a change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::{ServerGlob, ServerName, Timestamp};
use restante_mailbox::{
    InviteHash, Lapse, Lapsed, LeftMail, RegisterOutcome, Registration, Registry,
    Senders as StoredSenders, StoreError,
};
use restante_relay_api::Senders;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::admission::Terms;
use crate::signed_at::LastSigned;

/// Registered servers in memory, those that were asked for last. Most lists of senders are short; the longest have 64 KiB.
const REGISTERED_MAX: usize = 1024;
/// Servers that are known not to be registered; strangers can make up any number, which must not drive out the others.
const UNREGISTERED_MAX: usize = 8192;

/// Registered servers whose last call is remembered; of others it is noted once more.
const CALLED_MAX: usize = 8192;
/// A call is noted once in so long: noting each would cost a write, and registrations lapse after many days of silence.
const NOTED_ANEW_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The registry, and what is known of it.
pub(crate) struct Registrations {
    registry: Arc<dyn Registry>,
    known: Mutex<Known>,
    /// Whose registration is being changed. One at a time for each server: leaving may drop a whole mailbox first, and
    /// nobody else must wait for that.
    turns: Mutex<HashMap<ServerName, Arc<Turn<()>>>>,
    last_signed: LastSigned,
}

struct Known {
    registered: BoundedMap<ServerName, Arc<Terms>>,
    unregistered: BoundedMap<ServerName, ()>,
    /// When a call was noted last.
    called: BoundedMap<ServerName, Timestamp>,
    /// What was read before a change is not kept after it.
    changes: u64,
}

/// One who may change the registration of a server, and nobody else meanwhile.
pub(crate) struct Change<'a> {
    registrations: &'a Registrations,
    server: ServerName,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.turn = None;
        let mut turns = self.registrations.turns();
        if turns.get(&self.server).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.server);
        }
    }
}

impl Known {
    fn new() -> Self {
        Self {
            registered: BoundedMap::new(REGISTERED_MAX),
            unregistered: BoundedMap::new(UNREGISTERED_MAX),
            called: BoundedMap::new(CALLED_MAX),
            changes: 0,
        }
    }
}

impl Registrations {
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            known: Mutex::new(Known::new()),
            turns: Mutex::default(),
            last_signed: LastSigned::default(),
        }
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

    /// Waits until nobody else changes the registration of `server`: what becomes of it is decided by what is there.
    pub(crate) async fn change(&self, server: &ServerName) -> Change<'_> {
        let turn = self.turns().entry(server.clone()).or_default().clone();
        let turn = Some(turn.lock_owned().await);
        Change { registrations: self, server: server.clone(), turn }
    }

    /// `server` has made a signed call: if it is registered, its registration does not lapse for a while. What can't be
    /// written down is noted with a later call.
    pub(crate) async fn note_call(
        &self,
        server: &ServerName,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.terms(server).await?.is_none() {
            return Ok(());
        }
        {
            let mut known = self.known();
            if known.called.get(server).is_some_and(|at| now.since(*at) < NOTED_ANEW_AFTER) {
                return Ok(());
            }
            known.called.insert(server.clone(), now);
        }
        if let Err(error) = self.registry.note_call(server, now).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(mailbox = %server, error, "a call could not be noted");
        }
        Ok(())
    }

    /// One step of lapsing.
    pub(crate) async fn lapse(
        &self,
        lapse: &Lapse,
        after: Option<&ServerName>,
        batch_max: usize,
    ) -> Result<Lapsed, StoreError> {
        let lapsed = self.registry.lapse(lapse, after, batch_max).await;
        match &lapsed {
            Ok(lapsed) => lapsed.registrations.iter().for_each(|server| self.forget(server)),
            // What the disk did not confirm may have happened all the same, to whom is not known.
            Err(_) => self.forget_all(),
        }
        lapsed
    }

    fn forget(&self, server: &ServerName) {
        let mut known = self.known();
        known.changes += 1;
        known.registered.remove(server);
        known.unregistered.remove(server);
        known.called.remove(server);
    }

    fn forget_all(&self) {
        let mut known = self.known();
        *known = Known { changes: known.changes + 1, ..Known::new() };
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<ServerName, Arc<Turn<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// What was signed last by whom.
    pub(crate) fn last_signed(&self) -> &LastSigned {
        &self.registrations.last_signed
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
    let Registration { time_to_live, outgoing, admitted_by, .. } = *registration;
    Terms { senders, time_to_live, outgoing, admitted_by }
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
        AdmittedBy, Invite, InviteId, InviteOutcome, Left, MemoryStore, OpenInvite, Outgoing,
        Revoked,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// Counts how often it is asked who is registered.
    #[derive(Default)]
    struct Counting {
        store: MemoryStore,
        asked: AtomicUsize,
        noted: AtomicUsize,
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

        async fn note_call(
            &self,
            recipient: &ServerName,
            now: Timestamp,
        ) -> Result<(), StoreError> {
            self.noted.fetch_add(1, Ordering::SeqCst);
            self.store.note_call(recipient, now).await
        }

        async fn lapse(
            &self,
            lapse: &Lapse,
            after: Option<&ServerName>,
            batch_max: usize,
        ) -> Result<Lapsed, StoreError> {
            self.store.lapse(lapse, after, batch_max).await
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
            admitted_by: AdmittedBy::Nobody,
            outgoing: Outgoing::No,
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

        let change = registrations.change(&b).await;
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
            .change(&name("b.example"))
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

    /// Of what was heard of last before `moment`.
    fn before(moment: Timestamp) -> Lapse {
        Lapse { called_before: moment, unused_before: moment, now: moment, spared: Arc::new([]) }
    }

    #[tokio::test]
    async fn a_call_is_noted_once_a_day_and_keeps_the_registration() {
        let registry = Arc::new(Counting::default());
        let registrations = Registrations::new(registry.clone());
        let (b, day) = (name("b.example"), NOTED_ANEW_AFTER);
        let change = registrations.change(&b).await;
        change.register(registration("b.example", &[]), None, NOW).await.unwrap();
        drop(change);
        for hour in 0..48 {
            let now = NOW.after(Duration::from_secs(3600 * hour));
            registrations.note_call(&b, now).await.unwrap();
            registrations.note_call(&name("stranger.example"), now).await.unwrap();
        }
        assert_eq!(registry.noted.load(Ordering::SeqCst), 2);

        let noted = NOW.after(day);
        registrations.lapse(&before(noted), None, 10).await.unwrap();
        assert!(registrations.terms(&b).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_registration_that_has_lapsed_is_not_believed_any_more() {
        let registry = Arc::new(Counting::default());
        let registrations = Registrations::new(registry.clone());
        let b = name("b.example");
        let change = registrations.change(&b).await;
        change.register(registration("b.example", &[]), None, NOW).await.unwrap();
        drop(change);
        assert!(registrations.terms(&b).await.unwrap().is_some());

        let later = NOW.after(NOTED_ANEW_AFTER);
        let lapsed = registrations.lapse(&before(later), None, 10).await.unwrap();

        assert_eq!(lapsed.registrations, std::slice::from_ref(&b));
        assert_eq!(registrations.terms(&b).await.unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_changes_a_registration_keeps_out_nobody_but_those_of_the_same_server() {
        let registrations = Registrations::new(Arc::new(Counting::default()));
        let (b, c) = (name("b.example"), name("c.example"));
        let leaving = registrations.change(&b).await;
        drop(registrations.change(&c).await);
        let mut another = std::pin::pin!(registrations.change(&b));
        assert!(futures_util::poll!(another.as_mut()).is_pending());
        drop(leaving);
        drop(another.await);
        assert!(registrations.turns().is_empty());
    }

    #[test]
    fn a_list_that_cannot_be_read_lets_nobody_in() {
        let unreadable = terms(&registration("b.example", &["not a pattern"]));
        assert!(!unreadable.senders.permit(&name("a.example")));
    }
}
