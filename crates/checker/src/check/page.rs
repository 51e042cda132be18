//! Holds one collect against what must have been in the mailbox, and what can't have been.

use std::collections::BTreeSet;

use super::observation::Observation;
use super::windows::Letter;
use crate::violation::Fault;

pub(super) fn check(
    observation: &Observation<'_>,
    letters: &[Letter<'_>],
    damaged: u64,
    faults: &mut Vec<Fault>,
) {
    check_form(observation, faults);
    let shown: BTreeSet<u64> = observation.seen.iter().map(|seen| seen.id).collect();
    for letter in letters {
        let is_shown = letter.id.is_some_and(|id| shown.contains(&id));
        let fault =
            if is_shown { came_back(observation, letter) } else { missing(observation, letter) };
        faults.extend(fault);
    }
    check_queue(observation, letters, damaged, faults);
}

fn check_form(observation: &Observation<'_>, faults: &mut Vec<Fault>) {
    let ids = std::iter::once(observation.after).chain(observation.seen.iter().map(|seen| seen.id));
    if !ids.is_sorted_by(|one, next| one < next) {
        faults.push(Fault::NotAscending { collect: observation.call });
    }
    if observation.seen.len() as u64 > observation.limit {
        faults.push(Fault::TooMany { collect: observation.call });
    }
}

fn came_back(observation: &Observation<'_>, letter: &Letter<'_>) -> Option<Fault> {
    let acknowledgement = letter.removed_by.filter(|_| is_gone(observation, letter))?;
    let (key, collect) = (letter.key.clone(), observation.call);
    Some(Fault::CameBack { key, acknowledgement, collect })
}

/// What is not shown must not have been there, or lie outside of what the page covers.
fn missing(observation: &Observation<'_>, letter: &Letter<'_>) -> Option<Fault> {
    if may_be_removed(observation, letter) {
        return None;
    }
    let (key, collect) = (letter.key.clone(), observation.call);
    let was_there = letter.stored.latest < observation.start;
    match letter.id {
        Some(id) if id <= observation.after => None,
        Some(id) if id < observation.last_id() && was_there => Some(Fault::Lost { key, collect }),
        Some(id) if id < observation.last_id() => Some(Fault::AppearedBehind { key, id, collect }),
        None if letter.id_above < observation.after => None,
        _ => (observation.is_complete && was_there).then_some(Fault::Lost { key, collect }),
    }
}

/// What the answer counts was counted after it looked, within the same call.
fn check_queue(
    observation: &Observation<'_>,
    letters: &[Letter<'_>],
    damaged: u64,
    faults: &mut Vec<Fault>,
) {
    let Some((count, bytes)) = observation.queued else { return };
    let collect = observation.call;
    let certain = || {
        let was_there = |letter: &&Letter<'_>| letter.stored.latest < observation.start;
        letters.iter().filter(was_there).filter(|letter| !may_be_removed(observation, letter))
    };
    let possible = || {
        let was_there = |letter: &&Letter<'_>| letter.stored.earliest < observation.end;
        letters.iter().filter(was_there).filter(|letter| !is_gone(observation, letter))
    };
    let (least, most) = (certain().count() as u64, possible().count() as u64);
    // What is declared damaged is not counted.
    let least = least.saturating_sub(damaged);
    if !(least..=most).contains(&count) {
        faults.push(Fault::WrongCount { collect, count, least, most });
    }
    let least = if damaged > 0 { 0 } else { certain().map(|letter| letter.bytes.0).sum() };
    let most = possible().map(|letter| letter.bytes.1).sum();
    if !(least..=most).contains(&bytes) {
        faults.push(Fault::WrongBytes { collect, bytes, least, most });
    }
}

/// Whether some acknowledgement can have removed it before the collect was over.
fn may_be_removed(observation: &Observation<'_>, letter: &Letter<'_>) -> bool {
    letter.removed.earliest < observation.end
}

/// Whether it was removed before the collect looked. A collect acknowledges before it looks.
fn is_gone(observation: &Observation<'_>, letter: &Letter<'_>) -> bool {
    letter.removed.latest < observation.start || letter.removed_by == Some(observation.call)
}
