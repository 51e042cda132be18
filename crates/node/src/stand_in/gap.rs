//! Decides which held events make up a gap in a room. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::HeldEvent;

/// A gap that may be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// The events between, each after its predecessors.
    pub(super) events: Vec<String>,
    /// What they follow and what is neither held nor known to be there: the gap is whole only if all of these are.
    pub(super) boundary: BTreeSet<String>,
}

/// The gap before `latest`; `None` if one of these is not held itself, so that nobody knows what it follows.
/// What is `known` to be there is not part of it, nor is anything behind.
pub(super) fn gap(
    held: &BTreeMap<String, HeldEvent>,
    known: &BTreeSet<String>,
    latest: &[String],
) -> Option<Gap> {
    let mut gap = Gap { events: Vec::new(), boundary: BTreeSet::new() };
    let mut met: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    for event_id in latest {
        let event = held.get(event_id)?;
        for prev in &event.prev_events {
            descend(held, prev, &mut met, &mut gap);
        }
    }
    gap.events.retain(|event_id| !latest.contains(event_id));
    Some(gap)
}

/// Adds everything from `event_id` down that was not met yet: predecessors first. A stack of its own, as a chain may
/// be a thousand events long.
fn descend<'a>(
    held: &'a BTreeMap<String, HeldEvent>,
    event_id: &'a str,
    met: &mut BTreeSet<&'a str>,
    gap: &mut Gap,
) {
    enum Visit<'a> {
        Enter(&'a str),
        Leave(&'a str),
    }
    let mut due = vec![Visit::Enter(event_id)];
    while let Some(visit) = due.pop() {
        match visit {
            Visit::Leave(event_id) => gap.events.push(event_id.to_owned()),
            Visit::Enter(event_id) if !met.insert(event_id) => {}
            Visit::Enter(event_id) => match held.get(event_id) {
                None => drop(gap.boundary.insert(event_id.to_owned())),
                Some(event) => {
                    due.push(Visit::Leave(event_id));
                    due.extend(event.prev_events.iter().map(|prev| Visit::Enter(prev)));
                }
            },
        }
    }
}
