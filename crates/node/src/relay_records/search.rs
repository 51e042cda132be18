//! Looks for a server's relays at all sources at once: what a delivery needs now.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::pace::{Looked, Outcome};
use super::sources::{Said, Source, ask};
use super::{RelayRecords, Taken};
use crate::restart::caught;

/// Own relays that are asked about others; more know hardly more.
const RELAYS_ASKED_MAX: usize = 4;

/// The longest that a delivery waits for a search, which goes on without it.
const WAIT_MAX: Duration = Duration::from_secs(6);

/// Of one server: when it was looked for last, and who is looking now.
#[derive(Debug, Clone, Default)]
pub(super) struct Searched {
    looked: Option<Looked>,
    under_way: Option<watch::Receiver<Progress>>,
}

/// How far a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Looking,
    /// Something was found, or nothing more is to be.
    Enough,
}

impl RelayRecords {
    /// Looks for the relays of `server`, unless that was done a short while ago, and waits for `wait` at most until there
    /// is something. What is found is in the relay book.
    pub(crate) async fn find(&self, server: &ServerName, wait: Duration) {
        let Some(mut under_way) = self.begin(server) else { return };
        let enough = under_way.wait_for(|progress| *progress == Progress::Enough);
        // Whoever looks has ended if it says no more.
        drop(timeout(wait.min(WAIT_MAX), enough).await);
    }

    /// The same without waiting.
    pub(crate) fn look_for(&self, server: &ServerName) {
        drop(self.begin(server));
    }

    /// Begins a search, or joins the one under way; `None` if it is too early for another.
    fn begin(&self, server: &ServerName) -> Option<watch::Receiver<Progress>> {
        let shared = &self.shared;
        if !shared.look_up || server == shared.site.server_name() {
            return None;
        }
        let now = shared.site.clock.now();
        let mut searched = self.searched();
        let before = searched.get(server).cloned().unwrap_or_default();
        if let Some(under_way) = &before.under_way {
            return Some(under_way.clone());
        }
        if before.looked.is_some_and(|looked| !looked.is_over(now)) {
            return None;
        }
        let (progress, under_way) = watch::channel(Progress::Looking);
        let entry = Searched { under_way: Some(under_way.clone()), ..before };
        searched.insert(server.clone(), entry);
        drop(searched);
        let (records, server) = (self.clone(), server.clone());
        shared.background.spawn(async move {
            let outcome = caught("a search for relays", records.search(&server, &progress)).await;
            // Also after a panic: else this server would never be looked for again.
            records.ended(&server, outcome.unwrap_or(Outcome::Nothing));
        });
        Some(under_way)
    }

    /// Asks everybody; the first record that counts is enough for those who wait, and a newer one may still come.
    async fn search(&self, server: &ServerName, progress: &watch::Sender<Progress>) -> Outcome {
        let shared = &self.shared;
        let Ok(_place) = shared.places.acquire().await else { return Outcome::Nothing };
        let own = shared.site.relays.own().into_iter().take(RELAYS_ASKED_MAX);
        let relays = own.map(|known| Source::Relay(known.peer));
        let mut asked: FuturesUnordered<_> = std::iter::once(Source::WellKnown)
            .chain(relays)
            .map(|source| ask(&shared.site, source, server))
            .collect();
        let mut outcome = Outcome::Nothing;
        while let Some(said) = asked.next().await {
            let Said::Record(candidate) = said else { continue };
            // One that is known already is an answer as well.
            if self.take_in(&candidate).await == Taken::Learned || self.is_known(server).await {
                outcome = Outcome::Answered;
                progress.send_replace(Progress::Enough);
            }
        }
        outcome
    }

    async fn is_known(&self, server: &ServerName) -> bool {
        self.known(server).await.is_ok_and(|known| known.is_some())
    }

    fn ended(&self, server: &ServerName, outcome: Outcome) {
        let now = self.shared.site.clock.now();
        let mut searched = self.searched();
        let before = searched.get(server).cloned().unwrap_or_default();
        let looked = Some(Looked::next(before.looked, outcome, now));
        searched.insert(server.clone(), Searched { looked, under_way: None });
    }

    fn searched(&self) -> MutexGuard<'_, BoundedMap<ServerName, Searched>> {
        self.shared.searched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
