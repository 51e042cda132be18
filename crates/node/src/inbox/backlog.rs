//! Decides which events of a room's backlog may be delivered: each after its predecessors, and none for ever.
//!
//! Pure: the caller says what the homeserver has, and the time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};

/// Events of a room that are looked at in one turn, oldest first.
pub(crate) const EVENTS_PER_TURN: u32 = 2_000;

/// Predecessors that are asked for in one turn; the next turn asks for the next ones.
const QUESTIONS_MAX: usize = 20;

/// Deliveries of one event, the first included. A homeserver that dropped it so often will not store it.
const ATTEMPTS_MAX: u32 = 6;

/// The wait before an event that the homeserver dropped is delivered again, doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(10);

/// The longest of these waits. Whatever is due later was set aside while the clock was ahead, and is due.
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// An event that waits in a room's backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Its row; older ones have lower numbers.
    pub(crate) id: i64,
    /// Its id.
    pub(crate) event_id: String,
    /// Who brought it.
    pub(crate) origin: ServerName,
    /// Whether it came with that server's own proof; otherwise anybody may have named it.
    pub(crate) is_proven: bool,
    /// What it follows.
    pub(crate) prev_events: Vec<String>,
    /// The server of its sender.
    pub(crate) sender: Option<ServerName>,
    /// Whether it says which servers may take part in the room.
    pub(crate) is_acl: bool,
    /// How often the homeserver took and dropped it.
    pub(crate) attempts: u32,
    /// Not before this time.
    pub(crate) due_at: Timestamp,
}

/// What becomes of an event that the homeserver dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is delivered again after this wait.
    Again(Duration),
    /// It is given up.
    Park,
}

/// The predecessors that the homeserver must be asked for: those that neither wait here nor were delivered lately.
/// `turn` counts up, so that each is asked for in its turn, however many there are.
pub(crate) fn questions(
    held: &[Held],
    delivered: impl Fn(&str) -> bool,
    turn: usize,
) -> BTreeSet<String> {
    let here: BTreeSet<&str> = held.iter().map(|held| held.event_id.as_str()).collect();
    let prev = held.iter().flat_map(|held| &held.prev_events).map(String::as_str);
    let unknown: BTreeSet<&str> =
        prev.filter(|prev| !here.contains(prev) && !delivered(prev)).collect();
    let pages = unknown.len().div_ceil(QUESTIONS_MAX).max(1);
    let page = unknown.into_iter().skip(turn % pages * QUESTIONS_MAX).take(QUESTIONS_MAX);
    page.map(str::to_owned).collect()
}

/// The next events to deliver, at most `places`, each behind its predecessors. An event that changes who may take part
/// in the room comes last: what follows it must be judged by it.
pub(crate) fn deliverable(
    held: &[Held],
    is_there: impl Fn(&str) -> bool,
    places: usize,
    now: Timestamp,
) -> Vec<&Held> {
    let index_of: BTreeMap<&str, usize> =
        held.iter().enumerate().map(|(index, held)| (held.event_id.as_str(), index)).collect();
    let mut successors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut lacks = vec![0_usize; held.len()];
    for (index, event) in held.iter().enumerate() {
        let distinct: BTreeSet<&str> = event.prev_events.iter().map(String::as_str).collect();
        for prev in distinct {
            match index_of.get(prev) {
                Some(prev) => successors.entry(*prev).or_default().push(index),
                None if is_there(prev) => continue,
                None => {}
            }
            lacks[index] += 1;
        }
    }
    let ready = lacks.iter().enumerate().filter(|(_, lacks)| **lacks == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.map(|(index, _)| Reverse(index)).collect();
    let mut chosen = Vec::new();
    while let Some(Reverse(index)) = ready.pop() {
        if chosen.len() == places {
            break;
        }
        let event = &held[index];
        if event.due_at > now && event.due_at <= now.after(RETRY_MAX) {
            continue;
        }
        chosen.push(event);
        if event.is_acl {
            break;
        }
        for successor in successors.remove(&index).unwrap_or_default() {
            lacks[successor] -= 1;
            if lacks[successor] == 0 {
                ready.push(Reverse(successor));
            }
        }
    }
    chosen
}

/// Decides about an event that the homeserver took and dropped `attempts` times.
pub(crate) fn dropped(attempts: u32) -> Dropped {
    if attempts >= ATTEMPTS_MAX {
        return Dropped::Park;
    }
    let wait = RETRY_FIRST * 2u32.saturating_pow(attempts.saturating_sub(1));
    Dropped::Again(wait.min(RETRY_MAX))
}

#[cfg(test)]
mod tests;
