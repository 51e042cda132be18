//! Keeps what each relay is to be told: the mail that came durably from another one, so that its copies stay where they are.
//!
//! Pure, and in memory alone: what is forgotten costs a download.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use restante_relay_api::HeldElsewhere;
use restante_relay_api::limits::HAVE_MAX;

/// What is kept for one relay: the newest.
pub(super) const KEPT_MAX: usize = 5000;

/// Bytes of what one request tells: with every acknowledgement beside it the request stays within the bound of all relays,
/// however long the names are that senders choose.
const TOLD_BYTES_MAX: usize = 128 * 1024;

/// What each relay is to be told.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    relays: BTreeMap<u64, VecDeque<Arc<Named>>>,
}

#[derive(Debug)]
struct Named {
    name: HeldElsewhere,
    /// As it stands in a request, with a comma.
    bytes: usize,
}

impl Named {
    fn new(name: HeldElsewhere) -> Self {
        let json = serde_json::to_vec(&name).expect("a struct of strings is JSON");
        Self { name, bytes: json.len() + 1 }
    }
}

/// Whether one request tells all that a relay is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    More,
}

impl Elsewhere {
    /// `relay` is told from here on.
    pub(super) fn join(&mut self, relay: u64) {
        self.relays.insert(relay, VecDeque::new());
    }

    /// `relay` is told no more.
    pub(super) fn leave(&mut self, relay: u64) {
        self.relays.remove(&relay);
    }

    /// Mail from `from` is durable here: all others are to be told.
    pub(super) fn came(&mut self, from: u64, names: Vec<HeldElsewhere>) {
        let names: Vec<_> = names.into_iter().map(|name| Arc::new(Named::new(name))).collect();
        let others = self.relays.iter_mut().filter(|(relay, _)| **relay != from);
        for (_, kept) in others {
            kept.extend(names.iter().cloned());
            kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        }
    }

    /// `relay` gave these itself; they are acknowledged by their ids.
    pub(super) fn given(&mut self, relay: u64, names: &BTreeSet<HeldElsewhere>) {
        if let Some(kept) = self.relays.get_mut(&relay) {
            kept.retain(|named| !names.contains(&named.name));
        }
    }

    /// What the next request to `relay` tells, oldest first, and whether that is all.
    pub(super) fn next(&self, relay: u64) -> (Vec<HeldElsewhere>, Rest) {
        let Some(kept) = self.relays.get(&relay) else { return (Vec::new(), Rest::Nothing) };
        let mut bytes = 0;
        let fits = kept.iter().take(HAVE_MAX).take_while(|named| {
            bytes += named.bytes;
            bytes <= TOLD_BYTES_MAX
        });
        let told: Vec<_> = fits.map(|named| named.name.clone()).collect();
        let rest = if told.len() < kept.len() { Rest::More } else { Rest::Nothing };
        (told, rest)
    }

    /// `relay` answered a request that told it this. What was forgotten meanwhile was the oldest of it.
    pub(super) fn told(&mut self, relay: u64, told: &[HeldElsewhere]) {
        let Some(kept) = self.relays.get_mut(&relay) else { return };
        for name in told {
            if kept.front().is_some_and(|first| first.name == *name) {
                kept.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> HeldElsewhere {
        let origin = "a.test".parse().unwrap();
        HeldElsewhere { origin, txn_id: number.to_string(), sha256: "ab".repeat(32) }
    }

    fn names(numbers: std::ops::Range<usize>) -> Vec<HeldElsewhere> {
        numbers.map(name).collect()
    }

    fn of(relays: std::ops::Range<u64>) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        relays.for_each(|relay| elsewhere.join(relay));
        elsewhere
    }

    #[test]
    fn what_came_from_one_relay_is_told_to_the_others_until_they_answer() {
        let mut elsewhere = of(0..3);
        elsewhere.came(1, names(0..2));
        assert_eq!(elsewhere.next(1), (vec![], Rest::Nothing));
        for relay in [0, 2] {
            let (told, rest) = elsewhere.next(relay);
            assert_eq!((told, rest), (names(0..2), Rest::Nothing));
        }
        elsewhere.came(2, names(2..3));
        elsewhere.told(0, &names(0..2));
        assert_eq!(elsewhere.next(0).0, names(2..3));
        assert_eq!(elsewhere.next(2).0, names(0..2));
        elsewhere.leave(2);
        assert_eq!(elsewhere.next(2).0, []);
    }

    #[test]
    fn a_request_tells_so_many_and_the_next_one_goes_on() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, names(0..HAVE_MAX + 3));
        let (told, rest) = elsewhere.next(0);
        assert_eq!((told.len(), rest), (HAVE_MAX, Rest::More));
        elsewhere.told(0, &told);
        assert_eq!(elsewhere.next(0), (names(HAVE_MAX..HAVE_MAX + 3), Rest::Nothing));
    }

    #[test]
    fn long_names_make_no_request_too_large() {
        let long = |number| HeldElsewhere {
            txn_id: format!("{number}{}", "\u{1}".repeat(250)),
            ..name(0)
        };
        let mut elsewhere = of(0..2);
        elsewhere.came(1, (0..HAVE_MAX).map(long).collect());
        let (told, rest) = elsewhere.next(0);
        assert_eq!(rest, Rest::More);
        assert!(!told.is_empty());
        assert!(serde_json::to_vec(&told).unwrap().len() <= TOLD_BYTES_MAX + 2);
    }

    #[test]
    fn the_oldest_is_forgotten_be_it_on_its_way() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, names(0..KEPT_MAX));
        let (told, _) = elsewhere.next(0);
        elsewhere.came(1, names(KEPT_MAX..KEPT_MAX + 10));
        assert_eq!(elsewhere.next(0).0[0], name(10));
        elsewhere.told(0, &told);
        assert_eq!(elsewhere.next(0).0[0], name(HAVE_MAX));
    }

    #[test]
    fn what_a_relay_gives_itself_it_is_not_told() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, names(0..3));
        elsewhere.given(0, &names(1..2).into_iter().collect());
        assert_eq!(elsewhere.next(0).0, [name(0), name(2)]);
    }
}
