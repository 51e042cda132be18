//! Decides which destination is called when.
//!
//! Pure: the caller passes the time and the jitter. However much mail waits and whoever left it, each destination is called by one visit
//! at a time, and those who share a host by one together. After a visit in vain it is called again later and later; a sign of life calls it at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

/// Destinations that are called at once: each holds one transaction in memory.
const VISITS_MAX: usize = 16;

/// Between the beginnings of two visits, whoever they are for: a relay with ten thousand dark destinations must not look like a scanner.
const VISITS_APART: Duration = Duration::from_millis(50);

/// Between the beginnings of two visits to one destination, whatever life it shows: it may call a hundred times a second and take
/// nothing.
const SAME_APART: Duration = Duration::from_secs(5);

/// How the wait after calls in vain grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait after so many calls in vain, between three quarters of it and all of it by `jitter`, a fraction.
    pub(crate) fn after(self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.max);
        whole.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 4.0)
    }
}

/// All destinations for which mail waits.
#[derive(Default)]
pub(crate) struct Schedule {
    destinations: BTreeMap<ServerName, Standing>,
    /// Those that are not being called, by when they are due.
    waiting: BTreeSet<(Instant, ServerName)>,
    hosts_called: BTreeSet<String>,
    visits: usize,
    next_visit_from: Option<Instant>,
}

struct Standing {
    due: Instant,
    failures: u32,
    /// When it was called last.
    called_at: Option<Instant>,
    call: Calling,
    /// Whose mail was tried last in vain; the next visit begins behind it, so that what one origin sends does not hold up the others'.
    turn: Option<ServerName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Calling {
    No,
    /// A visit is under way; what has happened since it began.
    Yes {
        heard: bool,
        more: bool,
    },
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
}

/// How a visit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing waits any more.
    Drained,
    /// It answers, and there is something to do at this time.
    Later(Instant),
    /// Nobody answered who could take mail; it was this origin's.
    Unreachable(ServerName),
}

impl Schedule {
    /// Mail for `destination` is to be delivered; if it is not known, at once, or `within` a while.
    pub(crate) fn wanted(&mut self, destination: &ServerName, now: Instant, within: Duration) {
        if let Some(standing) = self.destinations.get_mut(destination) {
            if let Calling::Yes { more, .. } = &mut standing.call {
                *more = true;
            }
            return;
        }
        let due = now + within;
        let standing =
            Standing { due, failures: 0, called_at: None, call: Calling::No, turn: None };
        self.destinations.insert(destination.clone(), standing);
        self.waiting.insert((due, destination.clone()));
    }

    /// `server` shows life; whether mail waits for it.
    pub(crate) fn heard(&mut self, server: &ServerName, now: Instant) -> bool {
        let Some(standing) = self.destinations.get_mut(server) else { return false };
        match &mut standing.call {
            Calling::Yes { heard, .. } => *heard = true,
            Calling::No => {
                standing.failures = 0;
                let soonest = standing.called_at.map_or(now, |at| now.max(at + SAME_APART));
                if soonest < standing.due {
                    self.waiting.remove(&(standing.due, server.clone()));
                    standing.due = soonest;
                    self.waiting.insert((soonest, server.clone()));
                }
            }
        }
        true
    }

    /// The next visit, which then counts as begun.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        if self.visits >= VISITS_MAX {
            return Next::Nothing;
        }
        // A destination whose host is being called waits for that visit's end, which changes something.
        let free =
            |(_, server): &&(Instant, ServerName)| !self.hosts_called.contains(server.host());
        let Some((due, destination)) = self.waiting.iter().find(free).cloned() else {
            return Next::Nothing;
        };
        let from = self.next_visit_from.map_or(due, |from| from.max(due));
        if from > now {
            return Next::At(from);
        }
        self.begin((due, destination), now)
    }

    fn begin(&mut self, (due, destination): (Instant, ServerName), now: Instant) -> Next {
        self.waiting.remove(&(due, destination.clone()));
        let Some(standing) = self.destinations.get_mut(&destination) else { return Next::Nothing };
        standing.call = Calling::Yes { heard: false, more: false };
        standing.called_at = Some(now);
        let begin_after = standing.turn.take();
        self.visits += 1;
        self.hosts_called.insert(destination.host().to_owned());
        self.next_visit_from = Some(now + VISITS_APART);
        Next::Call(Call { destination, begin_after })
    }

    /// A visit has ended.
    pub(crate) fn ended(
        &mut self,
        destination: &ServerName,
        ended: Ended,
        (now, backoff, jitter): (Instant, Backoff, f64),
    ) {
        let Some(standing) = self.destinations.get_mut(destination) else { return };
        let Calling::Yes { heard, more } = standing.call else { return };
        standing.call = Calling::No;
        self.visits -= 1;
        self.hosts_called.remove(destination.host());
        let called_at = standing.called_at.unwrap_or(now);
        let due = match ended {
            Ended::Drained if !more => {
                self.destinations.remove(destination);
                return;
            }
            Ended::Drained => now,
            Ended::Later(at) => {
                standing.failures = 0;
                if more { now } else { at }
            }
            Ended::Unreachable(origin) => {
                standing.turn = Some(origin);
                standing.failures = if heard { 0 } else { standing.failures.saturating_add(1) };
                let wait =
                    if heard { Duration::ZERO } else { backoff.after(standing.failures, jitter) };
                (now + wait).max(called_at + SAME_APART)
            }
        };
        standing.due = due;
        self.waiting.insert((due, destination.clone()));
    }

    /// How many destinations there are.
    pub(crate) fn destinations(&self) -> u64 {
        self.destinations.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_secs(30), max: Duration::from_secs(3600) };

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn called(schedule: &mut Schedule, now: Instant) -> Option<String> {
        match schedule.next(now) {
            Next::Call(call) => Some(call.destination.to_string()),
            _ => None,
        }
    }

    fn end_in_vain(schedule: &mut Schedule, destination: &str, now: Instant) {
        let ended = Ended::Unreachable(name("a.example"));
        schedule.ended(&name(destination), ended, (now, BACKOFF, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn mail_is_delivered_at_once_and_one_visit_does_for_all_of_it() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for _ in 0..100 {
            schedule.wanted(&name("b.example"), now, Duration::ZERO);
        }
        assert_eq!(called(&mut schedule, now).as_deref(), Some("b.example"));
        assert_eq!(schedule.next(now + seconds(100)), Next::Nothing);
        schedule.ended(&name("b.example"), Ended::Drained, (now, BACKOFF, 0.0));
        assert_eq!((schedule.next(now), schedule.destinations()), (Next::Nothing, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn mail_that_comes_during_a_visit_has_another() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        called(&mut schedule, now).unwrap();
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        schedule.ended(&name("b.example"), Ended::Drained, (now, BACKOFF, 0.0));
        assert_eq!(called(&mut schedule, now + VISITS_APART).as_deref(), Some("b.example"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dark_destination_is_called_some_thirty_times_a_day_whatever_is_left_for_it() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        let (mut now, mut calls) = (begun, 0);
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        while now < begun + seconds(24 * 3600) {
            match schedule.next(now) {
                Next::Call(_) => {
                    calls += 1;
                    end_in_vain(&mut schedule, "b.example", now + seconds(10));
                }
                Next::At(at) => now = at,
                Next::Nothing => unreachable!("mail waits"),
            }
            schedule.wanted(&name("b.example"), now, Duration::ZERO);
        }
        assert!((25..=35).contains(&calls), "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_calls_at_once_but_not_again_and_again() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), begun, Duration::ZERO);
        called(&mut schedule, begun).unwrap();
        end_in_vain(&mut schedule, "b.example", begun);
        let later = begun + seconds(20);
        assert_eq!(called(&mut schedule, later), None);
        assert!(schedule.heard(&name("b.example"), later));
        assert_eq!(called(&mut schedule, later).as_deref(), Some("b.example"));
        end_in_vain(&mut schedule, "b.example", later);
        assert!(schedule.heard(&name("b.example"), later));
        assert_eq!(called(&mut schedule, later), None);
        assert_eq!(called(&mut schedule, later + SAME_APART).as_deref(), Some("b.example"));
        assert!(!schedule.heard(&name("c.example"), later), "nothing waits for it");
    }

    #[tokio::test(start_paused = true)]
    async fn life_during_a_visit_in_vain_calls_soon_again() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), begun, Duration::ZERO);
        called(&mut schedule, begun).unwrap();
        assert!(schedule.heard(&name("b.example"), begun));
        end_in_vain(&mut schedule, "b.example", begun + seconds(1));
        assert_eq!(schedule.next(begun + seconds(1)), Next::At(begun + SAME_APART));
    }

    #[tokio::test(start_paused = true)]
    async fn servers_at_one_host_are_called_one_after_the_other() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for port in 1..=50 {
            schedule.wanted(&name(&format!("victim.example:{port}")), now, Duration::ZERO);
        }
        let first = called(&mut schedule, now).unwrap();
        assert_eq!(called(&mut schedule, now + seconds(1)), None);
        end_in_vain(&mut schedule, &first, now);
        assert!(called(&mut schedule, now + seconds(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn visits_at_once_are_bounded_and_begin_apart() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        for number in 0..100 {
            schedule.wanted(&name(&format!("b{number}.example")), begun, Duration::ZERO);
        }
        assert!(called(&mut schedule, begun).is_some());
        assert_eq!(schedule.next(begun), Next::At(begun + VISITS_APART));
        let mut now = begun;
        for _ in 1..VISITS_MAX {
            now += VISITS_APART;
            assert!(called(&mut schedule, now).is_some());
        }
        assert_eq!(schedule.next(now + seconds(1)), Next::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn the_visit_after_one_in_vain_begins_with_another_origin() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        called(&mut schedule, now).unwrap();
        end_in_vain(&mut schedule, "b.example", now);
        let Next::Call(call) = schedule.next(now + seconds(40)) else { panic!("it is due") };
        assert_eq!(call.begin_after, Some(name("a.example")));
    }

    proptest! {
        #[test]
        fn waits_grow_to_their_bound_and_never_beyond(failures in 1..u32::MAX, jitter in -1.0..2.0_f64) {
            let wait = BACKOFF.after(failures, jitter);
            prop_assert!(wait >= BACKOFF.first.mul_f64(0.75) && wait <= BACKOFF.max);
            prop_assert!(BACKOFF.after(failures.saturating_add(1), jitter) >= wait);
        }

        #[test]
        fn whatever_happens_each_destination_is_called_by_one_visit_at_a_time(
            steps in prop::collection::vec((0..4_u8, 0..5_u8, 0..100_u64), 1..200)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            let (mut schedule, mut now) = (Schedule::default(), Instant::now());
            let mut under_way = BTreeSet::new();
            for (what, number, wait) in steps {
                let destination = name(&format!("b{number}.example"));
                now += seconds(wait);
                match what {
                    0 => schedule.wanted(&destination, now, Duration::ZERO),
                    1 => drop(schedule.heard(&destination, now)),
                    2 => if let Next::Call(call) = schedule.next(now) {
                        prop_assert!(under_way.insert(call.destination));
                    },
                    _ => if under_way.remove(&destination) {
                        end_in_vain(&mut schedule, destination.as_str(), now);
                    },
                }
            }
            // Nothing is lost: whatever waits is called in the end.
            for destination in std::mem::take(&mut under_way) {
                end_in_vain(&mut schedule, destination.as_str(), now);
            }
            let waiting = schedule.destinations();
            now += BACKOFF.max;
            let mut calls = 0;
            while calls < waiting {
                now += VISITS_APART;
                prop_assert!(called(&mut schedule, now).is_some());
                calls += 1;
            }
        }
    }
}
