//! Remembers which relays took nothing, and until when they are left alone. Pure: the time is an argument.

use std::collections::HashMap;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

use super::deposits::Refusal;
use super::resting::{Place, Reach};

/// Refusals that are remembered: a node knows a few relays, and mail for a few hundred servers waits at a time.
const REFUSALS_MAX: usize = 1024;

/// One refusal.
#[derive(Debug)]
struct Remembered {
    refusal: Refusal,
    reach: Reach,
    rests_until: Option<Instant>,
    /// Which one it is, counted from the first.
    number: u64,
}

/// The last refusal at each place for each destination.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    remembered: HashMap<(Place, ServerName), Remembered>,
    noted: u64,
}

impl Refusals {
    /// All, by relay and destination.
    pub(super) fn all(&self) -> Vec<Refusal> {
        let mut all: Vec<Refusal> =
            self.remembered.values().map(|one| one.refusal.clone()).collect();
        all.sort_by(|a, b| (&a.relay, &a.destination).cmp(&(&b.relay, &b.destination)));
        all
    }

    /// Why `place` is not to be asked yet to take mail for `destination`.
    pub(super) fn resting(
        &self,
        place: &Place,
        destination: &ServerName,
        now: Instant,
    ) -> Option<Refusal> {
        let mut resting = self.remembered.iter().filter(|(key, one)| {
            one.rests_until.is_some_and(|until| now < until)
                && concerns(key, one.reach, (place, destination))
        });
        resting.next().map(|(_, one)| one.refusal.clone())
    }

    /// `place` took nothing. When there are too many, one goes whose rest is over, else one that never rested, else the
    /// oldest: that a place rests is remembered whatever was made up before.
    pub(super) fn note(
        &mut self,
        place: Place,
        (refusal, reach): (Refusal, Reach),
        rests_until: Option<Instant>,
        now: Instant,
    ) {
        let key = (place, refusal.destination.clone());
        if self.remembered.len() >= REFUSALS_MAX && !self.remembered.contains_key(&key) {
            self.make_room(now);
        }
        self.noted += 1;
        let number = self.noted;
        self.remembered.insert(key, Remembered { refusal, reach, rests_until, number });
    }

    /// `place` took something for `destination`: what it refused before counts no more.
    pub(super) fn took(&mut self, place: &Place, destination: &ServerName) {
        self.remembered.retain(|key, one| !concerns(key, one.reach, (place, destination)));
    }

    fn make_room(&mut self, now: Instant) {
        let worth = |one: &Remembered| match one.rests_until {
            Some(until) if until <= now => 0,
            None => 1,
            Some(_) => 2,
        };
        let least = self.remembered.iter().min_by_key(|(_, one)| (worth(one), one.number));
        if let Some(key) = least.map(|(key, _)| key.clone()) {
            self.remembered.remove(&key);
        }
    }
}

fn concerns(
    (refused_at, refused_for): &(Place, ServerName),
    reach: Reach,
    (place, destination): (&Place, &ServerName),
) -> bool {
    refused_at == place && (reach == Reach::Everybody || refused_for == destination)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use restante_federation::Peer;
    use restante_federation_proto::Timestamp;

    use super::*;
    use crate::delivery::Lasting;
    use crate::test_site::name;

    fn strangers(relay: &str) -> Place {
        Place::of(&Peer::of_stranger(name(relay), None))
    }

    fn refusal(relay: &str) -> Refusal {
        Refusal {
            relay: name(relay),
            destination: name("b.test"),
            reason: String::new(),
            full: None,
            rests_until: None,
            lasting: Lasting::Temporary,
            at: Timestamp::EPOCH,
        }
    }

    fn note(refusals: &mut Refusals, relay: &str, until: Option<Instant>, now: Instant) {
        refusals.note(strangers(relay), (refusal(relay), Reach::Everybody), until, now);
    }

    #[test]
    fn a_new_rest_is_remembered_however_many_there_are_and_what_is_over_goes_first() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        note(&mut refusals, "first.test", Some(at(1000)), begun);
        note(&mut refusals, "over.test", Some(at(5)), begun);
        for number in 2..REFUSALS_MAX {
            note(&mut refusals, &format!("r{number}.test"), Some(at(1000)), begun);
        }
        let rests = |refusals: &Refusals, relay: &str| {
            refusals.resting(&strangers(relay), &name("c.test"), at(4)).is_some()
        };
        assert!(rests(&refusals, "over.test"));
        note(&mut refusals, "next.test", Some(at(1000)), at(5));
        assert!(rests(&refusals, "next.test") && rests(&refusals, "first.test"));
        assert!(!rests(&refusals, "over.test"));
        note(&mut refusals, "last.test", Some(at(1000)), at(6));
        assert!(rests(&refusals, "last.test") && !rests(&refusals, "first.test"));
        assert_eq!(refusals.all().len(), REFUSALS_MAX);
    }

    #[test]
    fn what_a_place_took_ends_its_rest_and_no_others() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let until = Some(now + Duration::from_secs(10));
        note(&mut refusals, "r.test", until, now);
        refusals.took(&strangers("other.test"), &name("b.test"));
        assert!(refusals.resting(&strangers("r.test"), &name("b.test"), now).is_some());
        refusals.took(&strangers("r.test"), &name("c.test"));
        assert_eq!(refusals.all(), []);
    }
}
