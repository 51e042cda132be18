//! Bounds the deposits that are under way at once: those at the operator's relays, and those that strangers' records ask for.
//!
//! Each of the operator's relays has places of its own, so that one that is away keeps nobody from another.
//!
//! Whoever signs a record may name relays that never answer. What waits for those takes no place from the operator's relays,
//! of the strangers' places only a few for one destination, and of these only some at one relay, so that the others that the
//! destination names are still asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use restante_federation_proto::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::finding::RELAYS_OF_RECORD_MAX;
use super::resting::Place;

/// Deposits under way at each of the operator's relays. Those of one transaction share its body, of 16 MiB at most.
const OPERATORS_MAX: usize = 32;

/// The same at all relays that strangers named.
const STRANGERS_MAX: usize = 64;

/// For one destination at all relays that its record names.
const OF_DESTINATION_MAX: usize = AT_PLACE_MAX * RELAYS_OF_RECORD_MAX;

/// For one destination at one of these relays: the next transaction does not wait for a slow answer to the one before.
const AT_PLACE_MAX: usize = 2;

/// The right to leave one deposit, until dropped.
#[derive(Debug)]
pub(super) struct Lane {
    _permits: Vec<OwnedSemaphorePermit>,
}

/// What deposits are bounded by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bound {
    /// At one of the operator's relays.
    Operators(Place),
    /// For one destination, at all relays that strangers named.
    Destination(ServerName),
    /// For one destination, at one of these.
    At(ServerName, Place),
}

/// Hands out lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    strangers: Arc<Semaphore>,
    bounds: Mutex<HashMap<Bound, Arc<Semaphore>>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { strangers: Arc::new(Semaphore::new(STRANGERS_MAX)), bounds: Mutex::default() }
    }
}

impl Lanes {
    /// Waits until a deposit for `destination` may begin at `place`.
    pub(super) async fn take(&self, destination: &ServerName, place: &Place) -> Lane {
        let lanes = match place {
            Place::Operators(_) => {
                vec![self.bound(Bound::Operators(place.clone()), OPERATORS_MAX)]
            }
            // What concerns all comes last: whoever waits for its own bound holds up nobody else.
            Place::StrangersUrl(_) | Place::StrangersName(_) => vec![
                self.bound(Bound::At(destination.clone(), place.clone()), AT_PLACE_MAX),
                self.bound(Bound::Destination(destination.clone()), OF_DESTINATION_MAX),
                self.strangers.clone(),
            ],
        };
        let mut permits = Vec::new();
        for lane in lanes {
            permits.push(lane.acquire_owned().await.expect("nobody closes a lane"));
        }
        Lane { _permits: permits }
    }

    fn bound(&self, bound: Bound, max: usize) -> Arc<Semaphore> {
        let mut bounds = self.bounds.lock().expect("nothing panics while it holds the bounds");
        // Whoever has a permit, or waits for one, holds the semaphore as well.
        bounds.retain(|_, lane| Arc::strong_count(lane) > 1);
        bounds.entry(bound).or_insert_with(|| Arc::new(Semaphore::new(max))).clone()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use restante_federation::Peer;

    use super::*;
    use crate::test_site::name;

    fn strangers(relay: &str) -> Place {
        Place::of(&Peer::of_stranger(name(relay), None))
    }

    fn taken(lanes: &Lanes, destination: &str, place: &Place) -> Option<Lane> {
        lanes.take(&name(destination), place).now_or_never()
    }

    #[test]
    fn one_destination_takes_few_places_whatever_its_record_names_by_and_by() {
        let lanes = Lanes::default();
        let many = (0..100).map(|number| strangers(&format!("tarpit{number}.test")));
        let held: Vec<Lane> =
            many.filter_map(|place| taken(&lanes, "hostile.test", &place)).collect();
        assert_eq!(held.len(), OF_DESTINATION_MAX);
        assert!(taken(&lanes, "b.test", &strangers("tarpit0.test")).is_some());
        drop(held);
        assert!(taken(&lanes, "hostile.test", &strangers("r.test")).is_some());
    }

    #[test]
    fn a_relay_that_hangs_leaves_places_for_the_others_of_its_destination() {
        let lanes = Lanes::default();
        let hanging = [strangers("tarpit1.test"), strangers("tarpit2.test")];
        let many = (0..100).flat_map(|_| &hanging);
        let held: Vec<Lane> = many.filter_map(|place| taken(&lanes, "b.test", place)).collect();
        assert_eq!(held.len(), 2 * AT_PLACE_MAX);
        assert!(taken(&lanes, "b.test", &strangers("r.test")).is_some());
    }

    #[test]
    fn a_relay_of_the_operators_that_hangs_takes_no_place_at_another() {
        let lanes = Lanes::default();
        let [hanging, well] = ["hangs.test", "r.test"].map(|relay| Place::of(&name(relay).into()));
        let many = (0..1000).map(|number| format!("{number}.test"));
        let held: Vec<Lane> =
            many.filter_map(|destination| taken(&lanes, &destination, &hanging)).collect();
        assert_eq!(held.len(), OPERATORS_MAX);
        assert!(taken(&lanes, "b.test", &well).is_some());
    }

    #[test]
    fn all_strangers_together_take_no_place_at_the_operators_relays() {
        let lanes = Lanes::default();
        let many = (0..1000).map(|number| format!("hostile{number}.test"));
        let tarpit = strangers("tarpit.test");
        let held: Vec<Lane> =
            many.filter_map(|destination| taken(&lanes, &destination, &tarpit)).collect();
        assert_eq!(held.len(), STRANGERS_MAX);
        let operators = Place::of(&name("r.test").into());
        assert!(taken(&lanes, "b.test", &operators).is_some());
        drop(held);
        assert!(taken(&lanes, "b.test", &tarpit).is_some());
        assert_eq!(lanes.bounds.lock().unwrap().len(), 2, "what ended leaves nothing behind");
    }
}
