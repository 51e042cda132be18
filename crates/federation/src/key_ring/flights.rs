//! One look-up per server at a time, and not too many in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Look-ups over the network at once, in each lane.
const FLIGHTS_MAX: usize = 32;
/// How long a look-up waits for its place among them.
pub(super) const PLACE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Entries of finished flights are swept out when there are so many in all.
const SWEEP_AT: usize = 256;

/// Who shares places. Anybody can name any number of servers that never answer, in a request's header or, unsigned, in
/// a question to a notary; neither may take the places of servers that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// For a signature of a server of which something is believed.
    Known,
    /// For a signature of any other server.
    Strangers,
    /// For somebody who asked about a server.
    Questions,
}

pub(super) struct Flights {
    turns: Mutex<HashMap<ServerName, Weak<TurnMutex<()>>>>,
    places: [Semaphore; 3],
}

impl Flights {
    pub(super) fn new() -> Self {
        Self { turns: Mutex::default(), places: [(); 3].map(|()| Semaphore::new(FLIGHTS_MAX)) }
    }

    /// Waits until nobody else looks for the keys of `server`. Whoever had to wait should look again at what is kept.
    pub(super) async fn turn(&self, server: &ServerName) -> OwnedMutexGuard<()> {
        let turn = self.turn_of(server);
        // Held over the look-up on purpose: the others wait for its result.
        turn.lock_owned().await
    }

    /// Waits for a place; `None` when all of the lane stay taken.
    pub(super) async fn place(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let places = &self.places[lane as usize];
        timeout(PLACE_WAIT_MAX, places.acquire()).await.ok()?.ok()
    }

    fn turn_of(&self, server: &ServerName) -> Arc<TurnMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(server).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= SWEEP_AT {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(TurnMutex::new(()));
        turns.insert(server.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_every_place_of_one_lane_keeps_no_other_lane_waiting() {
        let flights = Flights::new();
        let mut taken = Vec::new();
        for lane in [Lane::Strangers, Lane::Questions] {
            for _ in 0..FLIGHTS_MAX {
                taken.push(flights.place(lane).await.unwrap());
            }
            assert!(flights.place(lane).await.is_none());
        }
        assert!(flights.place(Lane::Known).await.is_some());
    }
}
