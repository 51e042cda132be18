//! Keeps what each relay is to be told: the mail that came durably from another one, so that its copies stay where they are.
//!
//! Pure, and in memory alone: what is forgotten costs a download.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use restante_relay_api::MailDigest;
use restante_relay_api::limits::HAVE_MAX;

/// What is kept for one relay: the newest.
pub(super) const KEPT_MAX: usize = 5000;

/// What each relay is to be told.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    relays: BTreeMap<u64, VecDeque<MailDigest>>,
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
    pub(super) fn came(&mut self, from: u64, names: &[MailDigest]) {
        let others = self.relays.iter_mut().filter(|(relay, _)| **relay != from);
        for (_, kept) in others {
            kept.extend(names.iter().copied());
            kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        }
    }

    /// `relay` gave these itself; they are acknowledged by their ids.
    pub(super) fn given(&mut self, relay: u64, names: &BTreeSet<MailDigest>) {
        if let Some(kept) = self.relays.get_mut(&relay) {
            kept.retain(|name| !names.contains(name));
        }
    }

    /// What the next request to `relay` tells, oldest first, and whether that is all.
    pub(super) fn next(&self, relay: u64) -> (Vec<MailDigest>, Rest) {
        let Some(kept) = self.relays.get(&relay) else { return (Vec::new(), Rest::Nothing) };
        let told: Vec<_> = kept.iter().take(HAVE_MAX).copied().collect();
        let rest = if told.len() < kept.len() { Rest::More } else { Rest::Nothing };
        (told, rest)
    }

    /// `relay` answered a request that told it this. What was forgotten meanwhile was the oldest of it.
    pub(super) fn told(&mut self, relay: u64, told: &[MailDigest]) {
        let Some(kept) = self.relays.get_mut(&relay) else { return };
        for name in told {
            if kept.front() == Some(name) {
                kept.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> MailDigest {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
        MailDigest(digest)
    }

    fn names(numbers: std::ops::Range<usize>) -> Vec<MailDigest> {
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
        elsewhere.came(1, &names(0..2));
        assert_eq!(elsewhere.next(1), (vec![], Rest::Nothing));
        for relay in [0, 2] {
            let (told, rest) = elsewhere.next(relay);
            assert_eq!((told, rest), (names(0..2), Rest::Nothing));
        }
        elsewhere.came(2, &names(2..3));
        elsewhere.told(0, &names(0..2));
        assert_eq!(elsewhere.next(0).0, names(2..3));
        assert_eq!(elsewhere.next(2).0, names(0..2));
        elsewhere.leave(2);
        assert_eq!(elsewhere.next(2).0, []);
    }

    #[test]
    fn a_request_tells_so_many_and_the_next_one_goes_on() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, &names(0..HAVE_MAX + 3));
        let (told, rest) = elsewhere.next(0);
        assert_eq!((told.len(), rest), (HAVE_MAX, Rest::More));
        elsewhere.told(0, &told);
        assert_eq!(elsewhere.next(0), (names(HAVE_MAX..HAVE_MAX + 3), Rest::Nothing));
    }

    #[test]
    fn the_oldest_is_forgotten_be_it_on_its_way() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, &names(0..KEPT_MAX));
        let (told, _) = elsewhere.next(0);
        elsewhere.came(1, &names(KEPT_MAX..KEPT_MAX + 10));
        assert_eq!(elsewhere.next(0).0[0], name(10));
        elsewhere.told(0, &told);
        assert_eq!(elsewhere.next(0).0[0], name(HAVE_MAX));
    }

    #[test]
    fn what_a_relay_gives_itself_it_is_not_told() {
        let mut elsewhere = of(0..2);
        elsewhere.came(1, &names(0..3));
        elsewhere.given(0, &names(1..2).into_iter().collect());
        assert_eq!(elsewhere.next(0).0, [name(0), name(2)]);
    }
}
