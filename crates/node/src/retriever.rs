//! The retriever: collects the homeserver's mail from every relay that holds some.
//!
//! One task per relay, so that one that hangs, floods or lies stops no other. What is decided here is decided in the pure
//! files [`course`], [`pace`], [`turns`] and [`elsewhere`].

mod call;
mod company;
mod course;
mod elsewhere;
mod flights;
mod pace;
mod relay;
mod relay_txn;
mod taking;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::Queued;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::comeback::Comebacks;
use crate::config::CollectSection;
use crate::inbox::Inbox;
use crate::relay_book::RelaysByServer;
use crate::restart::kept_running;
use crate::site::Site;

use company::{Company, Seat};

pub(crate) use relay::chain;

/// Own relays that are collected from; each may hold two long answers in memory, be they worked off or on their way.
const RELAYS_MAX: usize = 32;

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CollectSettings {
    /// How long a relay is asked to wait for mail.
    pub(crate) wait: Duration,
    /// After this time everything that a relay holds is looked at anew.
    pub(crate) safety_interval: Duration,
}

impl From<CollectSection> for CollectSettings {
    fn from(section: CollectSection) -> Self {
        Self { wait: section.wait.0, safety_interval: section.safety_interval.0 }
    }
}

/// What the operator sees of one relay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RelayStatus {
    /// When it last answered.
    pub(crate) last_collect_at: Option<Timestamp>,
    /// Why the last attempt failed, if it did.
    pub(crate) last_error: Option<String>,
    /// What waits there for us.
    pub(crate) queued: Option<Queued>,
    /// Whether the relay's operator holds the mailbox: it takes mail and hands none over.
    pub(crate) held: bool,
}

/// The state of collecting, by relay. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetrieverStatus {
    relays: Arc<Mutex<BTreeMap<ServerName, RelayStatus>>>,
    comebacks: Comebacks,
}

impl RetrieverStatus {
    /// What is known of `relay`; `None` before it is asked for the first time.
    pub(crate) fn of(&self, relay: &ServerName) -> Option<RelayStatus> {
        self.lock().get(relay).cloned()
    }

    /// Tells when this node is back after it was away.
    pub(crate) fn comebacks(&self) -> &Comebacks {
        &self.comebacks
    }

    pub(crate) fn answered(&self, relay: &ServerName, status: RelayStatus) {
        self.comebacks.relay_answered();
        self.lock().insert(relay.clone(), status);
    }

    /// The relay can't be reached.
    pub(crate) fn unreached(&self, relay: &ServerName, error: &str) {
        self.comebacks.relay_failed();
        self.failed(relay, error);
    }

    fn failed(&self, relay: &ServerName, error: &str) {
        self.lock().entry(relay.clone()).or_default().last_error = Some(error.to_owned());
    }

    fn retain(&self, relays: &[Peer]) {
        self.lock().retain(|relay, _| relays.iter().any(|known| known.name == *relay));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServerName, RelayStatus>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the tasks share.
#[derive(Clone)]
struct Retriever {
    site: Site,
    inbox: Inbox,
    settings: Adjustable<CollectSettings>,
    status: RetrieverStatus,
}

/// A relay, and its place among the others.
struct OwnRelay {
    peer: Peer,
    seat: Seat,
}

struct Task {
    peer: Peer,
    stop: CancellationToken,
}

/// Collects from all own relays until `shutdown`; relays that are added or removed meanwhile count at once.
pub(crate) async fn run(
    site: Site,
    inbox: Inbox,
    settings: impl Into<Adjustable<CollectSettings>>,
    status: RetrieverStatus,
    shutdown: CancellationToken,
) {
    let mut book = site.relays.watch();
    let retriever = Retriever { site, inbox, settings: settings.into(), status };
    let company = Company::default();
    let mut running: BTreeMap<ServerName, Task> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = retriever.own_relays(&book.borrow_and_update());
        running.retain(|_, task| {
            let stays = wanted.contains(&task.peer);
            if !stays {
                task.stop.cancel();
            }
            stays
        });
        for (rank, peer) in wanted.iter().enumerate() {
            if !running.contains_key(&peer.name) {
                let stop = shutdown.child_token();
                // All have their place before the first of them asks whose turn it is.
                let relay = OwnRelay { peer: peer.clone(), seat: company.join(rank) };
                tasks.spawn(collect(retriever.clone(), relay, stop.clone()));
                running.insert(peer.name.clone(), Task { peer: peer.clone(), stop });
            }
        }
        retriever.status.retain(&wanted);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            changed = book.changed() => if changed.is_err() { break },
            Some(_) = tasks.join_next() => {}
        }
    }
    running.values().for_each(|task| task.stop.cancel());
    while tasks.join_next().await.is_some() {}
}

/// Collects from one relay until `stop`, whatever happens.
async fn collect(retriever: Retriever, relay: OwnRelay, stop: CancellationToken) {
    let what = format!("collecting from {}", relay.peer.name);
    let work = || relay::collect(&retriever, &relay, &stop);
    kept_running(&what, &stop, work).await;
}

impl Retriever {
    /// The best first, each once.
    fn own_relays(&self, book: &RelaysByServer) -> Vec<Peer> {
        let own = book.get(self.site.server_name()).map(Vec::as_slice).unwrap_or_default();
        if own.len() > RELAYS_MAX {
            tracing::warn!("only {RELAYS_MAX} of {} own relays are collected from", own.len());
        }
        let peers = own.iter().take(RELAYS_MAX).map(|relay| relay.peer.clone());
        peers.fold(Vec::new(), |mut once, peer| {
            if once.iter().all(|known: &Peer| known.name != peer.name) {
                once.push(peer);
            }
            once
        })
    }
}
