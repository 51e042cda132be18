//! Tells our own outgoing relays that mail which they were to deliver has arrived, so that they do not send it again much later.
//!
//! What is to be told is known from the ledger: a restart forgets nothing, and a relay that is away hears it when it is back. Nothing
//! depends on it: whoever is not told delivers once more what the destination already has, and takes its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_relay_api::limits::LEFT_MAX;
use restante_relay_api::{LeftRequest, LeftTransaction, hex};
use restante_sqlite::StoreError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Outbox;
use crate::backoff::backoff;
use crate::left_call::call_left;
use crate::relay_call::{CallError, ClockOffset};
use crate::store::outbox::withdrawn::{self, ToWithdraw};

/// Bytes of an answer, which says nothing.
const ANSWER_BYTES_MAX: usize = 4096;

/// What arrives within this time is told together.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The longest sleep: which of our relays are outgoing is known when they have answered.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// The first wait after a relay could not be told, ...
const RETRY_FIRST: Duration = Duration::from_secs(30);

/// ... and the longest: as long as it waits for a destination that is away.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Destinations that are remembered one by one. Where there are more, the ledger is asked for all that it knows.
const DESTINATIONS_MAX: usize = 1000;

/// Where mail arrived since somebody looked last.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    at: Mutex<Destinations>,
    bell: Notify,
}

/// Destinations that mail arrived at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destinations {
    These(BTreeSet<ServerName>),
    All,
}

/// What one relay is to be told.
struct Due {
    about: Destinations,
    failures: u32,
    rests_until: Option<Instant>,
    offset: ClockOffset,
}

/// Why a relay was not told.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Arrived {
    /// Mail arrived at `destination`, in whichever way, and that is entered in the ledger.
    pub(crate) fn note(&self, destination: &ServerName) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.add(Destinations::These(BTreeSet::from([destination.clone()])));
        self.bell.notify_one();
    }

    fn take(&self) -> Destinations {
        std::mem::take(&mut *self.at.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Destinations {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Destinations {
    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::These(these), Self::These(more)) => {
                these.extend(more);
                if these.len() > DESTINATIONS_MAX {
                    *self = Self::All;
                }
            }
            (Self::These(_), Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }

    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Due {
    /// Of a relay that was told nothing since the node was started.
    fn all() -> Self {
        Self {
            about: Destinations::All,
            failures: 0,
            rests_until: None,
            offset: ClockOffset::default(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.about.are_none() && self.rests_until.is_none_or(|until| until <= now)
    }
}

pub(super) async fn run(outbox: &Outbox) {
    let mut due = BTreeMap::new();
    loop {
        let wait = outbox.withdraw(&mut due).await;
        tokio::select! {
            biased;
            () = outbox.site.bells.arrived.bell.notified() => {}
            () = sleep(wait) => {}
        }
        sleep(BATCH_DELAY).await;
    }
}

impl Outbox {
    /// Tells each relay what it is to be told; how long until there is something to tell again.
    async fn withdraw(&self, due: &mut BTreeMap<ServerName, Due>) -> Duration {
        let (arrived, outgoing) = (self.site.bells.arrived.take(), self.site.relays.outgoing());
        due.retain(|name, _| outgoing.iter().any(|relay| relay.name == *name));
        for relay in &outgoing {
            due.entry(relay.name.clone()).or_insert_with(Due::all).about.add(arrived.clone());
        }
        let now = Instant::now();
        let of_each = due.iter_mut().filter(|(_, due)| due.is_due(now));
        let telling = of_each.filter_map(|(name, due)| {
            let relay = outgoing.iter().find(|relay| relay.name == *name)?;
            Some(self.take_back_from(relay, due))
        });
        join_all(telling).await;
        let waiting = due.values().filter(|due| !due.about.are_none());
        let next = waiting.filter_map(|due| due.rests_until).min();
        next.map_or(SLEEP_MAX, |next| next.duration_since(Instant::now()).min(SLEEP_MAX))
    }

    async fn take_back_from(&self, relay: &Peer, due: &mut Due) {
        match self.take_all_back(relay, due).await {
            Ok(()) => (due.failures, due.rests_until) = (0, None),
            Err(error) => {
                due.failures = due.failures.saturating_add(1);
                let random = self.site.dice.fraction();
                let wait = backoff(due.failures, RETRY_FIRST, RETRY_MAX, random);
                due.rests_until = Some(Instant::now() + wait);
                let (relay, error) = (&relay.name, &error as &dyn std::error::Error);
                tracing::debug!(%relay, error, "it is told later that mail need not be delivered any more");
            }
        }
    }

    async fn take_all_back(&self, relay: &Peer, due: &mut Due) -> Result<(), NotTold> {
        let database = &self.site.database;
        let mut destinations = match std::mem::replace(&mut due.about, Destinations::All) {
            Destinations::These(destinations) => destinations,
            Destinations::All => withdrawn::destinations(database, relay.name.clone()).await?,
        };
        while let Some(destination) = destinations.first() {
            let told = self.take_back_for(relay, destination, &mut due.offset).await;
            if let Err(error) = told {
                due.about = Destinations::These(destinations);
                return Err(error);
            }
            destinations.pop_first();
        }
        due.about = Destinations::default();
        Ok(())
    }

    async fn take_back_for(
        &self,
        relay: &Peer,
        destination: &ServerName,
        offset: &mut ClockOffset,
    ) -> Result<(), NotTold> {
        let database = &self.site.database;
        loop {
            let of = (relay.name.clone(), destination.clone());
            let page = withdrawn::to_withdraw(database, of.clone(), LEFT_MAX).await?;
            if page.is_empty() {
                return Ok(());
            }
            self.call_by_its_clock(relay, (destination, &page), offset).await?;
            tracing::info!(relay = %relay.name, %destination, withdrawn = page.len(), "the relay need not deliver what has arrived");
            withdrawn::withdrawn(database, of, page, self.site.clock.now()).await?;
        }
    }

    async fn call_by_its_clock(
        &self,
        relay: &Peer,
        page: (&ServerName, &[ToWithdraw]),
        offset: &mut ClockOffset,
    ) -> Result<(), CallError> {
        match self.call_to_withdraw(relay, page, *offset).await {
            Err(CallError::Clock { theirs }) => {
                *offset = ClockOffset::between(self.site.clock.now(), theirs);
                self.call_to_withdraw(relay, page, *offset).await
            }
            called => called,
        }
    }

    async fn call_to_withdraw(
        &self,
        relay: &Peer,
        (destination, page): (&ServerName, &[ToWithdraw]),
        offset: ClockOffset,
    ) -> Result<(), CallError> {
        let withdraw = page.iter().map(|mail| LeftTransaction {
            destination: destination.clone(),
            txn_id: mail.txn_id.clone(),
            content_sha256: hex(&mail.content_sha256),
        });
        let request = LeftRequest {
            ask: Vec::new(),
            withdraw: withdraw.collect(),
            signed_at: offset.apply(self.site.clock.now()),
        };
        call_left(&self.site, relay, &request, ANSWER_BYTES_MAX).await.map(drop)
    }
}
