//! Decides which destination is called when.
//!
//! Pure: the caller passes the time and the jitter. However much mail waits and whoever left it, each destination is called by one visit
//! at a time, and those who share a host by one together. After a visit in vain it is called again later and later; a sign of life brings
//! one call forward, and only a call that succeeds ends the waiting.

mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

use super::backoff::Backoff;
pub(crate) use standing::Admitted;
use standing::{Calling, Outlook, SAME_APART, Standing};

/// Destinations that are called at once: each holds one transaction in memory.
const VISITS_MAX: usize = 16;

/// Those of them that were called in vain before, so that names that lead to nobody hold up nobody who answers.
const VISITS_IN_VAIN_MAX: usize = 8;

/// Between the beginnings of two visits, whoever they are for: a relay with ten thousand dark destinations must not look like a scanner.
const VISITS_APART: Duration = Duration::from_millis(50);

/// All destinations for which mail waits.
#[derive(Default)]
pub(crate) struct Schedule {
    destinations: BTreeMap<ServerName, Standing>,
    /// Those that are not being called, by when they are due.
    waiting: BTreeSet<(Instant, ServerName)>,
    /// As many of these as were called in vain last time and have shown no life since.
    waiting_in_vain: BTreeSet<(Instant, ServerName)>,
    hosts_called: BTreeSet<String>,
    visits: usize,
    visits_in_vain: usize,
    next_visit_from: Option<Instant>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Call(Call),
    /// Nothing before this.
    At(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// A visit that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) destination: ServerName,
    /// Whose mail comes last.
    pub(crate) begin_after: Option<ServerName>,
    pub(crate) admitted: Admitted,
}

/// How a visit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing waits any more.
    Drained,
    /// It answers, and there is something to do at this time, beginning behind this origin.
    Later(Instant, Option<ServerName>),
    /// Nobody answered who could take mail; the next visit begins behind this origin.
    Unreachable(Option<ServerName>),
    /// It was not called: its turn at its target comes then, and begins behind this origin.
    Postponed(Instant, Admitted, Option<ServerName>),
}

impl Schedule {
    /// Mail for `destination` is to be delivered; if it is not known, at once, or `within` a while. Where it only rests, there may be somebody
    /// now whose mail does not.
    pub(crate) fn wanted(&mut self, destination: &ServerName, now: Instant, within: Duration) {
        if let Some(standing) = self.destinations.get_mut(destination) {
            match &mut standing.call {
                Calling::Yes { more, .. } => *more = true,
                Calling::No if standing.outlook == Outlook::Rests => {
                    let soonest = standing.soonest(now);
                    self.bring_forward(destination, soonest);
                }
                Calling::No => {}
            }
            return;
        }
        let due = now + within;
        let standing = Standing::new(due);
        self.destinations.insert(destination.clone(), standing);
        self.waiting.insert((due, destination.clone()));
    }

    /// `server` shows life; whether mail waits for it.
    pub(crate) fn heard(&mut self, server: &ServerName, now: Instant) -> bool {
        let Some(standing) = self.destinations.get_mut(server) else { return false };
        if let Calling::Yes { heard, .. } = &mut standing.call {
            *heard = true;
            return true;
        }
        let soonest = standing.soonest(now);
        if standing.outlook == Outlook::InVain && (soonest < standing.due || soonest <= now) {
            self.waiting_in_vain.remove(&(standing.due, server.clone()));
            standing.outlook = Outlook::Heard;
            standing.due = soonest.min(standing.due);
            self.waiting.insert((standing.due, server.clone()));
        } else {
            self.bring_forward(server, soonest);
        }
        true
    }

    /// What may be delivered has changed: whoever rests is looked at anew, each a little after the other, and whoever is being visited once more.
    pub(crate) fn look_anew(&mut self, now: Instant) {
        let mut resting = Vec::new();
        for (name, standing) in &mut self.destinations {
            match &mut standing.call {
                Calling::Yes { more, .. } => *more = true,
                Calling::No if standing.outlook == Outlook::Rests => resting.push(name.clone()),
                Calling::No => {}
            }
        }
        resting.iter().for_each(|name| self.bring_forward(name, now));
    }

    fn bring_forward(&mut self, destination: &ServerName, soonest: Instant) {
        let Some(standing) = self.destinations.get_mut(destination) else { return };
        let queue = match standing.outlook {
            Outlook::InVain => &mut self.waiting_in_vain,
            Outlook::New | Outlook::Rests | Outlook::Heard => &mut self.waiting,
        };
        if soonest < standing.due && queue.remove(&(standing.due, destination.clone())) {
            standing.due = soonest;
            queue.insert((soonest, destination.clone()));
        }
    }

    /// The next visit, which then counts as begun.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        if self.visits >= VISITS_MAX {
            return Next::Nothing;
        }
        // A destination whose host is being called waits for that visit's end, which changes something.
        let free =
            |(_, server): &&(Instant, ServerName)| !self.hosts_called.contains(&host(server));
        let usual = self.waiting.iter().find(free).cloned();
        let in_vain = match self.visits_in_vain < VISITS_IN_VAIN_MAX {
            true => self.waiting_in_vain.iter().find(free).cloned(),
            false => None,
        };
        let first = match (usual, in_vain) {
            // Whoever is expected to answer goes first.
            (Some(usual), _) if usual.0 <= now => usual,
            (Some(usual), Some(in_vain)) => usual.min(in_vain),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Next::Nothing,
        };
        let from = self.next_visit_from.map_or(first.0, |from| from.max(first.0));
        if from > now {
            return Next::At(from);
        }
        self.begin(first, now)
    }

    fn begin(&mut self, (due, destination): (Instant, ServerName), now: Instant) -> Next {
        let place = (due, destination.clone());
        self.waiting.remove(&place);
        self.waiting_in_vain.remove(&place);
        let Some(standing) = self.destinations.get_mut(&destination) else { return Next::Nothing };
        let is_in_vain = standing.outlook == Outlook::InVain;
        let is_early = standing.outlook == Outlook::Heard;
        standing.call = Calling::Yes { heard: false, more: false, is_in_vain, is_early };
        standing.called_at = Some(now);
        let begin_after = standing.turn.take();
        let admitted = std::mem::replace(&mut standing.admitted, Admitted::No);
        self.visits += 1;
        self.visits_in_vain += usize::from(is_in_vain);
        self.hosts_called.insert(host(&destination));
        self.next_visit_from = Some(now + VISITS_APART);
        Next::Call(Call { destination, begin_after, admitted })
    }

    /// A visit has ended.
    pub(crate) fn ended(
        &mut self,
        destination: &ServerName,
        ended: Ended,
        (now, backoff, jitter): (Instant, Backoff, f64),
    ) {
        let Some(standing) = self.destinations.get_mut(destination) else { return };
        let Calling::Yes { heard, more, is_in_vain, is_early } = standing.call else { return };
        standing.call = Calling::No;
        self.visits -= 1;
        self.visits_in_vain -= usize::from(is_in_vain);
        self.hosts_called.remove(&host(destination));
        let due = match ended {
            Ended::Drained if !more => {
                self.destinations.remove(destination);
                return;
            }
            Ended::Drained => standing.answered(now, None),
            Ended::Later(at, turn) => {
                let at = if heard || more { at.min(standing.soonest(now)) } else { at };
                standing.answered(at, turn)
            }
            Ended::Unreachable(turn) => {
                standing.turn = turn;
                standing.failures = standing.failures.saturating_add(1);
                standing.early = standing.early.saturating_add(u32::from(is_early));
                standing.outlook = if heard { Outlook::Heard } else { Outlook::InVain };
                let later = now + backoff.after(standing.failures, jitter);
                let due = if heard { later.min(standing.soonest(now)) } else { later };
                standing.called_at.map_or(due, |at| due.max(at + SAME_APART))
            }
            Ended::Postponed(at, admitted, turn) => {
                standing.admitted = admitted;
                standing.turn = turn;
                at
            }
        };
        standing.due = due;
        match standing.outlook {
            Outlook::InVain => self.waiting_in_vain.insert((due, destination.clone())),
            Outlook::New | Outlook::Rests | Outlook::Heard => {
                self.waiting.insert((due, destination.clone()))
            }
        };
    }

    /// How many destinations there are.
    pub(crate) fn destinations(&self) -> u64 {
        self.destinations.len() as u64
    }
}

/// Whoever shares it may be one server under many ports.
fn host(server: &ServerName) -> String {
    server.host().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
