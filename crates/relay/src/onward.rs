//! Delivers mail onward: to servers that are not registered here, for origins that are registered as outgoing.
//!
//! The rules are pure: `schedule` says whom to call when, `backoff` how waits grow, `targets` how often names of one place are tried, `up` who is sent mail without
//! being asked first, `pace` how fast mail comes, `rests` whose mail waits meanwhile, `returns` whether an origin has come back. `request`
//! makes the call out of an envelope, `call` sends it and says what the answer means, `visit` goes from one to the next, and `others` leaves
//! with the recipient's own relays what its homeserver can't be called for. What waits is known from the store, so that
//! a restart forgets nothing but how often it was tried.

mod backoff;
mod call;
mod others;
mod pace;
mod request;
mod rests;
mod returns;
mod schedule;
mod targets;
mod up;
mod visit;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation_proto::ServerName;
use restante_mailbox::StoreError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rules::OnwardRules;
use crate::state::RelayState;
use others::Found;
use pace::Pace;
use rests::Rests;
use returns::Returns;
use schedule::{Next, Schedule};
use targets::Targets;
use up::AnsweredLately;
use visit::visit;

pub(crate) use backoff::Backoff;
pub(crate) use visit::OUTCOMES;

/// Destinations that one look into the store finds.
const FOUND_PAGE: usize = 500;

/// After a start, what waits is called for within this time, not all at once.
const SPREAD_AFTER_START: Duration = Duration::from_secs(60);

/// How long until the store is asked again that could not say for whom mail waits.
const FIND_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is known beside the store of mail that is to be delivered onward.
pub(crate) struct OnwardState {
    memory: Mutex<Memory>,
    changed: Notify,
}

struct Memory {
    schedule: Schedule,
    pace: Pace,
    rests: Rests,
    returns: Returns,
    found: Found,
    targets: Targets,
    up: AnsweredLately,
}

impl Default for OnwardState {
    fn default() -> Self {
        let memory = Memory {
            schedule: Schedule::default(),
            pace: Pace::default(),
            rests: Rests::default(),
            returns: Returns::default(),
            found: Found::default(),
            targets: Targets::default(),
            up: AnsweredLately::default(),
        };
        Self { memory: Mutex::new(memory), changed: Notify::new() }
    }
}

impl OnwardState {
    /// Mail for `destination` is to be delivered.
    pub(crate) fn left(&self, destination: &ServerName) {
        self.memory().schedule.wanted(destination, Instant::now(), Duration::ZERO);
        self.changed.notify_one();
    }

    /// Mail for `destination` waited before the start: it is called for `within` a while, or at once if it has shown life since.
    fn found(&self, destination: &ServerName, within: Duration) {
        let mut memory = self.memory();
        let within = if memory.returns.has_called(destination) { Duration::ZERO } else { within };
        memory.schedule.wanted(destination, Instant::now(), within);
    }

    /// `server` has made a request and is believed to be who it says. It may be waited for; and it may be an origin that was away.
    pub(crate) fn heard(&self, server: &ServerName, rules: &OnwardRules) {
        let now = Instant::now();
        let mut memory = self.memory();
        memory.returns.heard(server, rules.pause_after_return, now);
        if memory.schedule.heard(server, now) {
            drop(memory);
            self.changed.notify_one();
        }
    }

    /// The operator has changed whose mail is delivered.
    pub(crate) fn reconfigured(&self) {
        self.memory().schedule.look_anew(Instant::now());
        self.changed.notify_one();
    }

    /// Destinations for whom mail is to be delivered.
    pub(crate) fn destinations(&self) -> u64 {
        self.memory().schedule.destinations()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls destinations until the relay stops. A call under way when it stops is cut off: what it was about is tried again after the next
/// start, and a homeserver takes a transaction once.
pub(crate) async fn run(relay: RelayState) {
    let mut visits = JoinSet::new();
    let find = find_waiting(&relay);
    let call = async {
        loop {
            // Interest is registered before the look: what changes in between still wakes us.
            let changed = relay.onward.changed.notified();
            let next = relay.onward.memory().schedule.next(Instant::now());
            match next {
                Next::Call(call) => {
                    visits.spawn(visit(relay.clone(), call));
                }
                Next::At(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                Next::Nothing => changed.await,
            }
            while visits.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        biased;
        () = relay.shutdown.cancelled() => {}
        _ = async { tokio::join!(find, call) } => {}
    }
    visits.shutdown().await;
}

/// Finds what waited before this start.
async fn find_waiting(relay: &RelayState) {
    let mut after = None;
    loop {
        let found = relay.stores.onward.awaited_by(after.as_ref(), FOUND_PAGE).await;
        match found {
            Ok(found) => {
                for destination in &found {
                    let spread = SPREAD_AFTER_START.mul_f64(relay.dice.fraction());
                    relay.onward.found(destination, spread);
                }
                if !found.is_empty() {
                    relay.onward.changed.notify_one();
                }
                if found.len() < FOUND_PAGE {
                    return;
                }
                after = found.last().cloned();
            }
            Err(error) => {
                warn_unread(&error);
                tokio::time::sleep(FIND_AGAIN_AFTER).await;
            }
        }
    }
}

fn warn_unread(error: &StoreError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "what is to be delivered onward can't be read; it is tried again");
}

#[cfg(test)]
mod tests;
