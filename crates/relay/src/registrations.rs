//! Who is registered, kept at hand: the store is asked once for each server, and again after a change.

mod change;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::{ServerGlob, ServerName, Timestamp};
use restante_mailbox::{
    InviteHash, Lapse, Lapsed, Registration, Registry, Senders as StoredSenders, StoreError,
};
use restante_relay_api::Senders;

use crate::admission::Terms;
use crate::signed_at::LastSigned;
pub(crate) use change::Change;
use change::Turns;

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
    turns: Mutex<Turns>,
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

    /// `server` has made a signed call: if it is registered, its registration does not lapse for a while. What can't be
    /// written down is noted with a later call.
    pub(crate) async fn note_call(&self, server: &ServerName, now: Timestamp) {
        let could_not = |error: StoreError| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(mailbox = %server, error, "a call could not be noted");
        };
        match self.terms(server).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            // A damaged registration must not keep its server from its mail.
            Err(error) => return could_not(error),
        }
        {
            let mut known = self.known();
            if known.called.get(server).is_some_and(|at| now.since(*at) < NOTED_ANEW_AFTER) {
                return;
            }
            known.called.insert(server.clone(), now);
        }
        if let Err(error) = self.registry.note_call(server, now).await {
            could_not(error);
        }
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
mod tests;
