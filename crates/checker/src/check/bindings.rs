//! Finds which envelope each id stands for, and the faults that show in that alone.

use std::collections::BTreeMap;

use super::ledger::{Effect, Ledger};
use super::observation::Observation;
use crate::history::{Key, Seen};
use crate::violation::Fault;

/// Which id stands for which envelope.
#[derive(Default)]
pub(super) struct Bindings<'a> {
    pub(super) ids: BTreeMap<&'a Key, u64>,
    keys: BTreeMap<u64, &'a Key>,
}

impl<'a> Bindings<'a> {
    /// Whether the id is known to stand for another envelope than `key`.
    pub(super) fn is_of_another(&self, id: u64, key: &Key) -> bool {
        self.keys.get(&id).is_some_and(|known| *known != key)
    }

    fn bind(&mut self, id: u64, key: &'a Key, faults: &mut Vec<Fault>) {
        let known = *self.keys.entry(id).or_insert(key);
        if known != key {
            faults.push(Fault::IdReused { id, first: known.clone(), second: key.clone() });
            return;
        }
        let first_id = *self.ids.entry(key).or_insert(id);
        if first_id != id {
            faults.push(Fault::StoredTwice { key: key.clone(), first_id, second_id: id });
        }
    }
}

/// Binds every id that a collect showed. Answers that name no key are read last, since their ids may be bound by then.
pub(super) fn find<'a>(ledger: &Ledger<'a>, faults: &mut Vec<Fault>) -> Bindings<'a> {
    let mut bindings = Bindings::default();
    let (named, unnamed): (Vec<_>, Vec<_>) =
        sightings(ledger).partition(|(_, seen)| seen.key.is_some());
    for (observation, seen) in named.into_iter().chain(unnamed) {
        if let Some(key) = identify(ledger, &bindings, seen) {
            check_sighting(ledger, key, observation, seen, faults);
            bindings.bind(seen.id, key, faults);
        } else {
            let (id, collect) = (seen.id, observation.call);
            faults.push(Fault::FromNowhere { id, collect, also_left_for: None });
        }
    }
    bindings
}

fn sightings<'l, 'a>(
    ledger: &'l Ledger<'a>,
) -> impl Iterator<Item = (&'l Observation<'a>, &'a Seen)> {
    let of_one = |observation: &'l Observation<'a>| {
        observation.seen.iter().map(move |seen| (observation, seen))
    };
    ledger.observations.iter().flat_map(of_one)
}

/// The deposit that the envelope is; one that names no key is known by its id, or else by its content.
fn identify<'a>(ledger: &Ledger<'a>, bindings: &Bindings<'a>, seen: &Seen) -> Option<&'a Key> {
    if let Some(key) = &seen.key {
        return ledger.left.get_key_value(key).map(|(key, _)| *key);
    }
    let is_it = |key: &&Key| key.sha256 == seen.content;
    let by_id = bindings.keys.get(&seen.id).copied();
    let unbound = |key: &&Key| !bindings.ids.contains_key(key);
    by_id.or_else(|| {
        let mut candidates = ledger.left.keys().copied().filter(is_it);
        candidates.clone().find(unbound).or_else(|| candidates.next())
    })
}

fn check_sighting(
    ledger: &Ledger<'_>,
    key: &Key,
    observation: &Observation<'_>,
    seen: &Seen,
    faults: &mut Vec<Fault>,
) {
    let (id, collect) = (seen.id, observation.call);
    let possible = || ledger.left[key].iter().filter(|deed| deed.effect != Effect::None);
    if possible().next().is_none() {
        faults.push(Fault::RefusedAndStored { key: key.clone(), collect });
        return;
    }
    let mut left = possible();
    if seen.content != key.sha256 || !left.any(|deed| deed.what.members == seen.members) {
        faults.push(Fault::Changed { id, collect });
    }
    if possible().all(|deed| deed.start > observation.end) {
        faults.push(Fault::FromNowhere { id, collect, also_left_for: None });
    }
}
