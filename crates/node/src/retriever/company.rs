//! What the tasks of own relays have in common: whose turn it is to hand its backlog over, and what came from which.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use restante_relay_api::MailDigest;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::elsewhere::{Elsewhere, Rest};
use super::turns::{Changed, Place, Turn, Turns};

/// All own relays that are collected from. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Company(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// A turn is free, or somebody has much to tell its relay.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    elsewhere: Elsewhere,
    seats: u64,
}

/// The place of one relay; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    company: Company,
    place: Place,
}

/// What there is to do for a relay that may not hand over its backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// To tell it what came from others: a whole request of it.
    TellIt,
    /// To ask for the turn again.
    AskAgain,
}

impl Company {
    /// A place for a relay, which wants its turn. The lower the rank, the earlier.
    pub(super) fn join(&self, rank: usize) -> Seat {
        let mut state = self.state();
        state.seats += 1;
        let place = Place { rank, number: state.seats };
        state.turns.want(place);
        state.elsewhere.join(place.number);
        Seat { company: self.clone(), place }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether it is this relay's turn.
    pub(super) fn ask(&self) -> Turn {
        self.company.state().turns.ask(self.place, Instant::now())
    }

    /// Waits while it is another's turn.
    pub(super) async fn wait(&self) -> Meanwhile {
        // Interest is registered before the look: what changes in between still wakes us.
        let mut changed = std::pin::pin!(self.company.0.changed.notified());
        changed.as_mut().enable();
        if self.has_to_tell() == Rest::More {
            return Meanwhile::TellIt;
        }
        if let Turn::Anothers { until } = self.ask() {
            // Either way the turn is asked for again.
            let _ = timeout_at(until, changed).await;
        }
        Meanwhile::AskAgain
    }

    /// It has no backlog, or can't be asked for it.
    pub(super) fn release(&self) {
        if self.company.state().turns.release(self.place) == Changed::TurnIsFree {
            self.company.0.changed.notify_waiters();
        }
    }

    /// What the relay is to be told, and whether that is all.
    pub(super) fn tells(&self) -> (Vec<MailDigest>, Rest) {
        self.company.state().elsewhere.next(self.place.number)
    }

    fn has_to_tell(&self) -> Rest {
        self.tells().1
    }

    /// The relay answered a request that told it this.
    pub(super) fn told(&self, told: &[MailDigest]) {
        self.company.state().elsewhere.told(self.place.number, told);
    }

    /// The relay gave `all`, of which `new` was not there before; both are durable here.
    pub(super) fn gave(&self, all: &BTreeSet<MailDigest>, new: &[MailDigest]) {
        let mut state = self.company.state();
        let State { turns, elsewhere, .. } = &mut *state;
        elsewhere.given(self.place.number, all);
        if !new.is_empty() {
            turns.progressed(self.place, Instant::now());
            elsewhere.came(self.place.number, new);
            drop(state);
            self.company.0.changed.notify_waiters();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.release();
        self.company.state().elsewhere.leave(self.place.number);
    }
}
