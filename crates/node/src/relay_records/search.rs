//! Looks for a server's relays at all sources at once: what a delivery needs now.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::sync::watch;
use tokio::time::timeout;

use super::pace::{Looked, Need, Outcome};
use super::sources::{Said, Source, ask};
use super::{RelayRecords, Taken};
use crate::restart::caught;

/// Own relays that are asked about others; more know hardly more.
const RELAYS_ASKED_MAX: usize = 4;

/// The longest that a delivery waits for a search, which goes on without it.
const WAIT_MAX: Duration = Duration::from_secs(6);

/// The longest that one source's record is looked at: its key may have to be asked for at its server, which is often
/// offline, and then at notaries.
const TAKE_IN_MAX: Duration = Duration::from_secs(25);

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
    /// Looks for relays of `server` beside those that are known, unless that was done a short while ago, and waits for
    /// `wait` at most until there is something. What is found is in the relay book.
    pub(crate) async fn find(&self, server: &ServerName, wait: Duration) {
        let Some(mut under_way) = self.begin(server, Need::Another) else { return };
        let enough = under_way.wait_for(|progress| *progress == Progress::Enough);
        // Whoever looks has ended if it says no more.
        drop(timeout(wait.min(WAIT_MAX), enough).await);
    }

    /// Looks for what is needed without waiting.
    pub(crate) fn look_for(&self, server: &ServerName, need: Need) {
        drop(self.begin(server, need));
    }

    /// Begins a search, or joins the one under way; `None` if it is too early for another.
    fn begin(&self, server: &ServerName, need: Need) -> Option<watch::Receiver<Progress>> {
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
        if before.looked.is_some_and(|looked| !looked.is_over(need, now)) {
            return None;
        }
        let (progress, under_way) = watch::channel(Progress::Looking);
        let entry = Searched { under_way: Some(under_way.clone()), ..before };
        searched.insert(server.clone(), entry);
        drop(searched);
        let (records, server) = (self.clone(), server.clone());
        shared.background.spawn(async move {
            let search = records.search(&server, need, &progress);
            let outcome = caught("a search for relays", search).await;
            // Also after a panic: else this server would never be looked for again.
            records.ended(&server, outcome.unwrap_or(Outcome::Nothing));
        });
        Some(under_way)
    }

    /// Asks everybody; the first record that helps is enough for those who wait, and a newer one may still come.
    async fn search(
        &self,
        server: &ServerName,
        need: Need,
        progress: &watch::Sender<Progress>,
    ) -> Outcome {
        let shared = &self.shared;
        let Ok(_place) = shared.places.acquire().await else { return Outcome::Nothing };
        let own = shared.site.relays.own().into_iter().take(RELAYS_ASKED_MAX);
        let relays = own.map(|known| Source::Relay(known.peer));
        let mut asked: FuturesUnordered<_> = std::iter::once(Source::WellKnown)
            .chain(relays)
            .map(|source| self.try_source(source, server))
            .collect();
        let mut outcome = Outcome::Nothing;
        while let Some(taken) = asked.next().await {
            let helps = match (need, taken) {
                (_, Some(Taken::Learned)) | (Need::Newer, Some(_)) => self.has_relays(server).await,
                _ => false,
            };
            if helps {
                outcome = Outcome::Answered;
                progress.send_replace(Progress::Enough);
            }
        }
        outcome
    }

    /// Asks one source, and looks at its record while the others are asked: none keeps another waiting, whatever it says.
    async fn try_source(&self, source: Source, server: &ServerName) -> Option<Taken> {
        match ask(&self.shared.site, source, server).await {
            Said::Record(candidate) => Some(self.take_in_within(&candidate, TAKE_IN_MAX).await),
            Said::None | Said::Nothing => None,
        }
    }

    /// Whether mail for `server` can be left anywhere. A record that names nobody is no help.
    async fn has_relays(&self, server: &ServerName) -> bool {
        let holding = self.shared.site.relays.holding(server).await;
        holding.is_ok_and(|relays| !relays.is_empty())
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
