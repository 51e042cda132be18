//! Decides whose mail is delivered next: one turn at a time per origin, in the order in which they became due.
//!
//! Pure: the caller passes the time and the random share of each wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

use crate::backoff::backoff;

/// The first wait after a failure of the homeserver.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after failures of the homeserver: a restart is noticed within this time.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The first wait for rooms that are not ready, in case nothing tells of their progress.
const ROOMS_FIRST: Duration = Duration::from_secs(2);
/// The longest wait for rooms that are not ready.
const ROOMS_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether others' mail still goes first: it may have begun to wait for us.
const OTHERS_LOOKED_AT: Duration = Duration::from_secs(5);

/// How an origin's turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its share of the time is used up; more waits.
    More,
    /// Nothing waits.
    Nothing,
    /// The next envelope waits for other mail, at most so long.
    ForRelays(Duration),
    /// The next envelope waits for something to happen in these rooms.
    ForRooms(BTreeSet<String>),
    /// Others' mail for these rooms goes first.
    ForOthers(BTreeSet<String>),
    /// The homeserver did not take the next envelope now; it asks for this wait at least.
    Retry(Option<Duration>),
}

/// Every origin with mail.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    origins: BTreeMap<ServerName, Entry>,
    due: VecDeque<ServerName>,
}

#[derive(Debug, Default)]
struct Entry {
    state: State,
    /// Turns in a row that delivered nothing.
    failures: u32,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Due,
    Running {
        woken: bool,
    },
    Waiting {
        turn: Turn,
        until: Instant,
    },
}

impl Schedule {
    /// Mail of `origin` arrived. A wait after a failure of the homeserver goes on all the same.
    pub(crate) fn arrived(&mut self, origin: &ServerName) {
        match self.origins.get_mut(origin).map(|entry| &mut entry.state) {
            Some(State::Running { woken }) => *woken = true,
            Some(State::Due | State::Waiting { turn: Turn::Retry(_), .. }) => {}
            Some(State::Waiting { .. }) | None => self.make_due(origin.clone()),
        }
    }

    /// Something happened in `rooms`.
    pub(crate) fn progressed(&mut self, rooms: &BTreeSet<String>) {
        let waits_for = |entry: &Entry| match &entry.state {
            State::Waiting { turn: Turn::ForRooms(waited) | Turn::ForOthers(waited), .. } => {
                !waited.is_disjoint(rooms)
            }
            _ => false,
        };
        let woken = self.origins.iter().filter(|(_, entry)| waits_for(entry));
        let woken: Vec<_> = woken.map(|(origin, _)| origin.clone()).collect();
        for entry in self.origins.values_mut() {
            if let State::Running { woken } = &mut entry.state {
                *woken = true;
            }
        }
        woken.into_iter().for_each(|origin| self.make_due(origin));
    }

    /// The next origin whose turn it is; it runs until [`Self::ended`].
    pub(crate) fn begin(&mut self, now: Instant) -> Option<ServerName> {
        let expired = self.origins.iter().filter(
            |(_, entry)| matches!(entry.state, State::Waiting { until, .. } if until <= now),
        );
        let expired: Vec<_> = expired.map(|(origin, _)| origin.clone()).collect();
        expired.into_iter().for_each(|origin| self.make_due(origin));
        let origin = self.due.pop_front()?;
        self.origins.entry(origin.clone()).or_default().state = State::Running { woken: false };
        Some(origin)
    }

    /// The turn of `origin` ended; `delivered` envelopes came through. `random` is in 0..1.
    pub(crate) fn ended(
        &mut self,
        origin: ServerName,
        (turn, delivered): (Turn, usize),
        now: Instant,
        random: f64,
    ) {
        let Some(entry) = self.origins.get_mut(&origin) else { return };
        entry.failures = if delivered > 0 { 0 } else { entry.failures.saturating_add(1) };
        let woken = matches!(entry.state, State::Running { woken: true });
        let wait = match &turn {
            Turn::Nothing if !woken => {
                self.origins.remove(&origin);
                return;
            }
            Turn::Retry(at_least) => {
                let wait = backoff(entry.failures, RETRY_FIRST, RETRY_MAX, random);
                wait.max(at_least.unwrap_or_default().min(RETRY_MAX * 10))
            }
            Turn::More | Turn::Nothing => return self.make_due(origin),
            Turn::ForRelays(_) | Turn::ForRooms(_) | Turn::ForOthers(_) if woken => {
                return self.make_due(origin);
            }
            Turn::ForRelays(at_most) => *at_most,
            Turn::ForOthers(_) => OTHERS_LOOKED_AT,
            Turn::ForRooms(_) => backoff(entry.failures, ROOMS_FIRST, ROOMS_MAX, random),
        };
        entry.state = State::Waiting { turn, until: now + wait };
    }

    /// When the first wait ends.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let waits = self.origins.values().filter_map(|entry| match entry.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        });
        waits.min()
    }

    fn make_due(&mut self, origin: ServerName) {
        self.origins.entry(origin.clone()).or_default().state = State::Due;
        self.due.push_back(origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn rooms(room: &str) -> BTreeSet<String> {
        BTreeSet::from([room.to_owned()])
    }

    #[test]
    fn origins_take_turns() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        schedule.arrived(&origin("b"));
        schedule.arrived(&origin("a"));
        assert_eq!(schedule.begin(now), Some(origin("a")));
        schedule.ended(origin("a"), (Turn::More, 5), now, 0.5);
        assert_eq!(schedule.begin(now), Some(origin("b")));
        assert_eq!(schedule.begin(now), Some(origin("a")));
        assert_eq!(schedule.begin(now), None);
    }

    #[test]
    fn mail_that_arrives_during_a_turn_is_not_overlooked() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        schedule.begin(now);
        schedule.arrived(&origin("a"));
        schedule.ended(origin("a"), (Turn::Nothing, 1), now, 0.5);
        assert_eq!(schedule.begin(now), Some(origin("a")));
    }

    #[test]
    fn progress_in_a_room_ends_the_wait_for_it() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        schedule.begin(now);
        schedule.ended(origin("a"), (Turn::ForRooms(rooms("!r")), 0), now, 0.5);
        schedule.progressed(&rooms("!other"));
        assert_eq!(schedule.begin(now), None);
        schedule.progressed(&rooms("!r"));
        assert_eq!(schedule.begin(now), Some(origin("a")));
    }

    #[test]
    fn a_failing_homeserver_is_not_asked_more_often_when_more_mail_arrives() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        schedule.begin(now);
        schedule.ended(origin("a"), (Turn::Retry(Some(Duration::from_secs(30))), 0), now, 0.5);
        schedule.arrived(&origin("a"));
        assert_eq!(schedule.begin(now), None);
        let due = schedule.next_due().unwrap();
        assert_eq!(due, now + Duration::from_secs(30));
        assert_eq!(schedule.begin(due), Some(origin("a")));
    }

    #[test]
    fn waits_grow_until_something_comes_through() {
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        for (delivered, doubled) in [(0, 1), (0, 2), (0, 4), (1, 1), (0, 1), (0, 2)] {
            assert_eq!(schedule.begin(now), Some(origin("a")));
            schedule.ended(origin("a"), (Turn::ForRooms(rooms("!r")), delivered), now, 1.0);
            let due = schedule.next_due().unwrap();
            assert_eq!(due - now, ROOMS_FIRST * doubled);
            now = due;
        }
    }

    #[test]
    fn an_origin_without_mail_is_forgotten() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.arrived(&origin("a"));
        schedule.begin(now);
        schedule.ended(origin("a"), (Turn::Nothing, 1), now, 0.5);
        assert!(schedule.origins.is_empty() && schedule.due.is_empty());
    }
}
