//! Registers anew at each own relay: at the start, whenever what is said there changes, and once a day.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use restante_federation_proto::ServerName;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Registrations, StandingState, Terms};
use crate::backoff::backoff;
use crate::relay_book::{Departure, DepartureState, KnownRelay};
use crate::restart::kept_running;

/// After this time a registration is made anew, so that a relay which lost it has it again, and the key document that it
/// holds does not run out.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// The first wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(30);

/// The longest wait after failures, and after refusals, which somebody has to do something about.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// When a relay is asked next.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    failures: u32,
    /// Whether it was being left then: this says nothing about when to do anything else.
    departure: Option<Departure>,
}

impl Registrations {
    /// Keeps the registrations up until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let work = || async {
            shutdown.run_until_cancelled(self.keep_up()).await;
        };
        kept_running("registering at relays", &shutdown, work).await;
    }

    async fn keep_up(&self) {
        let mut book = self.shared.site.relays.watch();
        let mut terms = self.shared.terms.subscribe();
        let mut due: BTreeMap<ServerName, Due> = BTreeMap::new();
        loop {
            book.mark_unchanged();
            terms.mark_unchanged();
            let own = self.shared.site.relays.own();
            due.retain(|relay, due| {
                let mut own = own.iter();
                own.any(|known| known.peer.name == *relay && known.departure == due.departure)
            });
            let now = Instant::now();
            let asked = own.iter().filter(|known| self.is_due(known, &due, now));
            let rounds = asked.map(|known| self.round(known, due.get(&known.peer.name).copied()));
            let rounds: Vec<_> = join_all(rounds).await;
            due.extend(rounds);
            let next = due.values().map(|due| due.at).min();
            let next = next.unwrap_or_else(|| Instant::now() + RENEWAL);
            tokio::select! {
                biased;
                _ = book.changed() => {}
                _ = terms.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Whether this relay is to be told something now.
    fn is_due(&self, known: &KnownRelay, due: &BTreeMap<ServerName, Due>, now: Instant) -> bool {
        let is_time = due.get(&known.peer.name).is_none_or(|due| due.at <= now);
        match known.departure {
            Some(departure) => departure.state == DepartureState::Asked && is_time,
            None => is_time || self.is_outdated(&known.peer.name),
        }
    }

    /// Whether the relay holds a registration of ours that says something else than one would now.
    fn is_outdated(&self, relay: &ServerName) -> bool {
        let told = self.relays().get(relay).and_then(|entry| entry.told.clone());
        let mailbox = self.shared.terms.borrow().clone();
        told.is_some_and(|told| told != Terms { relays: self.recorded(), mailbox })
    }

    /// Tells one relay what there is to tell; when to do so again.
    async fn round(&self, known: &KnownRelay, before: Option<Due>) -> (ServerName, Due) {
        let turn = self.turn(&known.peer.name);
        let _turn = turn.acquire().await;
        let is_done = match known.departure {
            Some(_) => self.tell_again(&known.peer.name).await,
            None => self.register_again(known).await,
        };
        let failures = if is_done { 0 } else { before.map_or(0, |before| before.failures) + 1 };
        let random = self.shared.site.dice.fraction();
        let wait =
            if is_done { RENEWAL } else { backoff(failures, RETRY_FIRST, RETRY_MAX, random) };
        (
            known.peer.name.clone(),
            Due { at: Instant::now() + wait, failures, departure: known.departure },
        )
    }

    async fn register_again(&self, known: &KnownRelay) -> bool {
        let relay = &known.peer.name;
        // Whoever left it meanwhile had the turn before.
        let is_still_ours = self.recorded().iter().any(|ours| ours.name == *relay);
        if !is_still_ours {
            return true;
        }
        let before = self.of(relay).map(|standing| standing.state);
        let answer = self.attempt(&known.peer, self.recorded(), None).await;
        let Some(standing) = self.of(relay) else { return true };
        if before != Some(standing.state) {
            let (state, reason) = (standing.state, standing.reason.as_deref());
            match state {
                StandingState::Registered | StandingState::NotOffered => {
                    tracing::info!(%relay, ?state, "registered at a relay");
                }
                StandingState::Refused | StandingState::Failed => {
                    tracing::warn!(%relay, ?state, reason, advice = standing.advice, "not registered at a relay");
                }
            }
        }
        answer.is_ok() || standing.state == StandingState::NotOffered
    }

    /// The relay gave no answer to that we leave, or the node ended between noting it and telling the relay.
    async fn tell_again(&self, relay: &ServerName) -> bool {
        // Whoever had the turn before may have told it, or joined it anew.
        let Some(known) = self.known(relay) else { return true };
        let is_asked = |departure: &Departure| departure.state == DepartureState::Asked;
        let Some(departure) = known.departure.filter(is_asked) else { return true };
        match self.tell_departure(&known.peer, departure.mail).await {
            Ok(_) => true,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, relay = %known.peer.name, "a relay can't be told that we leave; it is tried again");
                false
            }
        }
    }
}
