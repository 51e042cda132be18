//! When each envelope came into its mailbox, and when it left: the widest windows that the history allows.

use std::collections::BTreeMap;

use super::bindings::Bindings;
use super::ledger::{Deed, Effect, Ledger};
use crate::history::{Acknowledged, Key, Tick};

/// Between which ticks something happened. `latest` is [`Tick::MAX`] when it need not have happened at all,
/// `earliest` when it can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) earliest: Tick,
    pub(super) latest: Tick,
}

/// One envelope.
pub(super) struct Letter<'a> {
    pub(super) key: &'a Key,
    /// Its id, if it was ever seen.
    pub(super) id: Option<u64>,
    /// Its id is above this in any case, since it was left after what has this id.
    pub(super) id_above: u64,
    /// Bytes that it counts, at least and at most: who leaves it again may add other members.
    pub(super) bytes: (u64, u64),
    pub(super) stored: Window,
    pub(super) removed: Window,
    /// The call that removed it for certain, the earliest to end.
    pub(super) removed_by: Option<usize>,
}

const NEVER: Window = Window { earliest: Tick::MAX, latest: Tick::MAX };

/// Every envelope that may have been stored.
pub(super) fn letters<'a>(ledger: &Ledger<'a>, bindings: &Bindings<'a>) -> Vec<Letter<'a>> {
    let seen_by = first_seen(ledger);
    let acknowledgements = by_id(&ledger.acknowledged);
    let mut letters = Vec::new();
    for (&key, deeds) in &ledger.left {
        let possible = || deeds.iter().filter(|deed| deed.effect != Effect::None);
        let Some(earliest) = possible().map(|deed| deed.start).min() else { continue };
        let certain = possible().filter(|deed| deed.effect == Effect::Certain);
        let answered = certain.map(|deed| deed.end).min().unwrap_or(Tick::MAX);
        let id = bindings.ids.get(key).copied();
        let seen = id.and_then(|id| seen_by.get(&id).copied()).unwrap_or(Tick::MAX);
        let stored = Window { earliest, latest: answered.min(seen) };
        let bytes = || possible().map(|deed| deed.what.bytes);
        let mut letter = Letter {
            key,
            id,
            id_above: 0,
            bytes: (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0)),
            stored,
            removed: NEVER,
            removed_by: None,
        };
        match id {
            Some(id) => letter.remove(acknowledgements.get(&id).into_iter().flatten().copied()),
            None => letter.remove(guesses(ledger, bindings, key)),
        }
        letter.remove_had(ledger.had.get(key).into_iter().flatten());
        letters.push(letter);
    }
    bound_ids(&mut letters);
    letters
}

/// Until when each id was first seen.
fn first_seen(ledger: &Ledger<'_>) -> BTreeMap<u64, Tick> {
    let mut seen_by = BTreeMap::new();
    for observation in &ledger.observations {
        for seen in observation.seen {
            let by = seen_by.entry(seen.id).or_insert(Tick::MAX);
            *by = observation.end.min(*by);
        }
    }
    seen_by
}

type AcknowledgementsById<'l> = BTreeMap<u64, Vec<&'l Deed<Acknowledged>>>;

fn by_id(acknowledged: &[Deed<Acknowledged>]) -> AcknowledgementsById<'_> {
    let mut by_id = AcknowledgementsById::new();
    for deed in acknowledged {
        by_id.entry(deed.what.id).or_default().push(deed);
    }
    by_id
}

/// Acknowledgements that can have meant an envelope nobody has seen: whoever names an id without having it guesses.
fn guesses<'l>(
    ledger: &'l Ledger<'_>,
    bindings: &'l Bindings<'_>,
    key: &'l Key,
) -> impl Iterator<Item = &'l Deed<Acknowledged>> {
    ledger.acknowledged.iter().filter(|deed| !bindings.is_of_another(deed.what.id, key))
}

impl Letter<'_> {
    /// Narrows when it left by the acknowledgements that name its id.
    fn remove<'l>(&mut self, acknowledgements: impl Iterator<Item = &'l Deed<Acknowledged>>) {
        for deed in acknowledgements {
            let means_it = deed.what.sha256.is_none_or(|sha256| sha256 == self.key.sha256);
            if !means_it || deed.end < self.stored.earliest {
                continue;
            }
            self.removed.earliest = self.removed.earliest.min(deed.start);
            if self.id.is_some() {
                self.surely_removed_by(deed);
            }
        }
    }

    /// Narrows when it left by what its owner said to have from elsewhere. That names the envelope itself, whatever its id; and
    /// it may be remembered ahead of the envelope, which then is never handed over.
    fn remove_had<'l>(&mut self, had: impl Iterator<Item = &'l Deed<()>>) {
        for deed in had {
            self.removed.earliest = self.removed.earliest.min(deed.start);
            self.surely_removed_by(deed);
        }
    }

    /// What was there before a call that had its effect is gone after it.
    fn surely_removed_by<T>(&mut self, deed: &Deed<T>) {
        let was_there = self.stored.latest < deed.start;
        if was_there && deed.effect == Effect::Certain && deed.end < self.removed.latest {
            self.removed.latest = deed.end;
            self.removed_by = Some(deed.call);
        }
    }
}

/// Bounds the ids of what was never seen: deposits that don't overlap have ids in their order.
fn bound_ids(letters: &mut [Letter<'_>]) {
    let mut seen: Vec<_> =
        letters.iter().filter_map(|letter| Some((letter.stored.latest, letter.id?))).collect();
    seen.sort_unstable();
    let highest: Vec<_> = seen
        .iter()
        .scan(0, |highest: &mut u64, (_, id)| {
            *highest = id.max(highest).to_owned();
            Some(*highest)
        })
        .collect();
    for letter in letters {
        let before = seen.partition_point(|(latest, _)| *latest < letter.stored.earliest);
        letter.id_above = before.checked_sub(1).map_or(0, |last| highest[last]);
    }
}
