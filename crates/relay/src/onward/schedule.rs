//! Decides which destination is called when.
//!
//! Pure: the caller passes the time and the jitter. However much mail waits and whoever left it, each destination is called by one visit
//! at a time, and those who share a host by one together. After a visit in vain it is called again later and later; a sign of life brings
//! one call forward, and only a call that succeeds ends the waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

/// Destinations that are called at once: each holds one transaction in memory.
const VISITS_MAX: usize = 16;

/// Those of them that were called in vain before, so that names that lead to nobody hold up nobody who answers.
const VISITS_IN_VAIN_MAX: usize = 8;

/// Between the beginnings of two visits, whoever they are for: a relay with ten thousand dark destinations must not look like a scanner.
const VISITS_APART: Duration = Duration::from_millis(50);

/// Between the beginnings of two visits to one destination, whatever life it shows: it may call a hundred times a second and take
/// nothing. It doubles with each visit that a sign of life brought forward in vain.
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
    /// As many of these as were called in vain last time and have shown no life since.
    waiting_in_vain: BTreeSet<(Instant, ServerName)>,
    hosts_called: BTreeSet<String>,
    visits: usize,
    visits_in_vain: usize,
    next_visit_from: Option<Instant>,
}

struct Standing {
    due: Instant,
    failures: u32,
    /// Visits in vain since the last that succeeded that a sign of life brought forward.
    early: u32,
    /// When it was called last.
    called_at: Option<Instant>,
    call: Calling,
    outlook: Outlook,
    /// The next visit begins behind this origin, so that what one origin sends does not hold up the others'.
    turn: Option<ServerName>,
    /// Whether its turn at its target has come.
    admitted: Admitted,
}

/// What is expected of the next visit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Nothing is known.
    New,
    /// It answers, and what waits rests.
    Rests,
    /// It was called in vain.
    InVain,
    /// It was called in vain, and has shown life since.
    Heard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Calling {
    No,
    /// A visit is under way; what has happened since it began.
    Yes {
        heard: bool,
        more: bool,
        /// Whether it counts as one of those in vain.
        is_in_vain: bool,
        /// Whether a sign of life brought it forward.
        is_early: bool,
    },
}

/// Whether a visit has waited for its turn among all that lead to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    Yes,
    No,
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
    /// It was not called: its turn at its target comes then.
    Postponed(Instant, Admitted),
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
        let standing = Standing {
            due,
            failures: 0,
            early: 0,
            called_at: None,
            call: Calling::No,
            outlook: Outlook::New,
            turn: None,
            admitted: Admitted::No,
        };
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

    /// What may be delivered has changed: whoever rests is looked at anew, each a little after the other.
    pub(crate) fn look_anew(&mut self, now: Instant) {
        let resting = self.destinations.iter().filter(|(_, standing)| {
            standing.call == Calling::No && standing.outlook == Outlook::Rests
        });
        let resting: Vec<ServerName> = resting.map(|(name, _)| name.clone()).collect();
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
            Ended::Postponed(at, admitted) => {
                standing.admitted = admitted;
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

impl Standing {
    /// When it may be called again at the earliest, whatever happens.
    fn soonest(&self, now: Instant) -> Instant {
        let apart = SAME_APART.saturating_mul(1 << self.early.min(12));
        self.called_at.map_or(now, |at| now.max(at + apart))
    }

    fn answered(&mut self, due: Instant, turn: Option<ServerName>) -> Instant {
        self.failures = 0;
        self.early = 0;
        self.turn = turn;
        self.outlook = Outlook::Rests;
        due
    }
}

/// Whoever shares it may be one server under many ports.
fn host(server: &ServerName) -> String {
    server.host().to_ascii_lowercase()
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

    /// The call that is due at `now`, and the end of it in vain.
    fn call_in_vain(schedule: &mut Schedule, now: Instant) -> Option<String> {
        let destination = called(schedule, now)?;
        end_in_vain(schedule, &destination, now);
        Some(destination)
    }

    fn end_in_vain(schedule: &mut Schedule, destination: &str, now: Instant) {
        let ended = Ended::Unreachable(Some(name("a.example")));
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
        assert_eq!(called(&mut schedule, later + 2 * SAME_APART).as_deref(), Some("b.example"));
        assert!(!schedule.heard(&name("c.example"), later), "nothing waits for it");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_calls_all_the_time_and_takes_nothing_is_called_less_and_less() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), begun, Duration::ZERO);
        let mut calls = 0;
        for second in 0..24 * 3600 {
            let now = begun + seconds(second);
            schedule.heard(&name("b.example"), now);
            calls += usize::from(call_in_vain(&mut schedule, now).is_some());
        }
        assert!((20..60).contains(&calls), "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_lead_nowhere_leave_room_for_those_that_answer() {
        let (mut schedule, begun) = (Schedule::default(), Instant::now());
        let mut now = begun;
        for number in 0..100 {
            schedule.wanted(&name(&format!("dark{number}.example")), begun, Duration::ZERO);
            assert!(call_in_vain(&mut schedule, now).is_some());
            now += VISITS_APART;
        }
        now += seconds(3600);
        for _ in 0..VISITS_IN_VAIN_MAX {
            assert!(called(&mut schedule, now).is_some());
            now += VISITS_APART;
        }
        assert_eq!(schedule.next(now), Next::Nothing);
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        assert_eq!(called(&mut schedule, now).as_deref(), Some("b.example"));
        // One that shows life is one of those.
        assert!(schedule.heard(&name("dark99.example"), now));
        let next = called(&mut schedule, now + VISITS_APART);
        assert_eq!(next.as_deref(), Some("dark99.example"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_rests_does_not_hold_up_what_comes_meanwhile() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.wanted(&name("b.example"), now, Duration::ZERO);
        called(&mut schedule, now).unwrap();
        let later = Ended::Later(now + seconds(3600), Some(name("z.example")));
        schedule.ended(&name("b.example"), later, (now, BACKOFF, 1.0));
        assert_eq!(called(&mut schedule, now + seconds(60)), None);
        schedule.wanted(&name("b.example"), now + seconds(60), Duration::ZERO);
        let Next::Call(call) = schedule.next(now + seconds(60)) else { panic!("it is due") };
        assert_eq!(call.begin_after, Some(name("z.example")), "others have their turn first");
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
            let host = if port % 2 == 0 { "victim.example" } else { "Victim.Example" };
            schedule.wanted(&name(&format!("{host}:{port}")), now, Duration::ZERO);
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
                let destination = called(&mut schedule, now);
                prop_assert!(destination.is_some());
                let drained = (now, BACKOFF, 1.0);
                schedule.ended(&name(&destination.unwrap()), Ended::Drained, drained);
                calls += 1;
            }
        }
    }
}
