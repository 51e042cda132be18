//! Decides the next step of one `/send`: straight to the destination, or to its relays.
//!
//! Pure: the shell in `delivery.rs` carries the steps out and notes what came of them in [`Progress`].

use std::time::Duration;

use restante_federation::Patience;

use super::schedule::Schedule;
use crate::destinations::Admission;

/// Shortest wait before a busy destination is asked again, whatever it says.
const BUSY_WAIT_MIN: Duration = Duration::from_secs(1);

/// What has happened in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    admission: Admission,
    attempts: u32,
    last: Last,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Failed { assumed_offline: Assumed },
    Busy { retry_after: Duration },
}

/// Whether a destination is assumed offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assumed {
    /// It may well be up.
    Online,
    /// Enough attempts failed.
    Offline,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait `pause`, then try the destination itself.
    Attempt {
        /// The wait before.
        pause: Duration,
        /// How long the attempt may take.
        patience: Patience,
    },
    /// Leave it with the relays.
    Relays,
    /// The destination is alive and too busy: its own 429 is the answer.
    PassBusyOn,
}

impl Progress {
    /// A call that begins.
    pub(crate) fn new(admission: Admission) -> Self {
        Self { admission, attempts: 0, last: Last::Nothing }
    }

    /// An attempt failed, after which the destination is `assumed` offline or not.
    pub(crate) fn failed(&mut self, assumed: Assumed) {
        self.attempts += 1;
        self.last = Last::Failed { assumed_offline: assumed };
    }

    /// The destination asked to wait.
    pub(crate) fn busy(&mut self, retry_after: Duration) {
        self.last = Last::Busy { retry_after };
    }

    /// The next step, `elapsed` after the call came in.
    pub(crate) fn next_step(&self, schedule: &Schedule, elapsed: Duration) -> Step {
        let (pause, patience) = match (self.last, self.admission) {
            (Last::Nothing, Admission::Offline)
            | (Last::Failed { assumed_offline: Assumed::Offline }, _)
            | (Last::Failed { .. }, Admission::Probe | Admission::Offline) => return Step::Relays,
            (Last::Nothing, Admission::Probe) => (Duration::ZERO, schedule.probe(elapsed)),
            (Last::Nothing | Last::Failed { .. }, Admission::Attempt) => {
                let pause = schedule.pause_before(self.attempts);
                (pause, schedule.attempt(self.attempts, elapsed + pause))
            }
            (Last::Busy { retry_after }, _) => {
                let pause = retry_after.max(BUSY_WAIT_MIN);
                (pause, schedule.attempt(self.attempts, elapsed.saturating_add(pause)))
            }
        };
        match (patience, self.last) {
            (Some(patience), _) => Step::Attempt { pause, patience },
            (None, Last::Busy { .. }) => Step::PassBusyOn,
            (None, _) => Step::Relays,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::DeliverySection;
    use crate::delivery::schedule::CALL_BUDGET;

    fn schedule() -> Schedule {
        Schedule::from(&DeliverySection::default())
    }

    fn step(progress: Progress, seconds: u64) -> Step {
        progress.next_step(&schedule(), Duration::from_secs(seconds))
    }

    #[test]
    fn a_destination_that_is_assumed_offline_is_not_tried() {
        assert_eq!(step(Progress::new(Admission::Offline), 0), Step::Relays);
    }

    #[test]
    fn a_probe_is_tried_once_with_its_short_patience() {
        let mut progress = Progress::new(Admission::Probe);
        let Step::Attempt { pause: Duration::ZERO, patience } = step(progress, 0) else {
            panic!("the probe is the first step")
        };
        assert_eq!(patience.connect, Duration::from_secs(3));
        progress.failed(Assumed::Online);
        assert_eq!(step(progress, 3), Step::Relays);
    }

    #[test]
    fn attempts_go_on_until_the_destination_is_assumed_offline() {
        let mut progress = Progress::new(Admission::Attempt);
        progress.failed(Assumed::Online);
        assert!(matches!(step(progress, 1), Step::Attempt { .. }));
        progress.failed(Assumed::Offline);
        assert_eq!(step(progress, 2), Step::Relays);
    }

    #[test]
    fn each_further_attempt_waits_longer_and_has_the_time_behind_its_pause() {
        let mut progress = Progress::new(Admission::Attempt);
        for attempt in 1..4 {
            progress.failed(Assumed::Online);
            let pause = schedule().pause_before(attempt);
            let patience = schedule().attempt(attempt, Duration::from_secs(1) + pause).unwrap();
            assert_eq!(step(progress, 1), Step::Attempt { pause, patience });
        }
    }

    #[test]
    fn attempts_that_used_up_their_time_go_to_the_relays() {
        let mut progress = Progress::new(Admission::Attempt);
        progress.failed(Assumed::Online);
        assert_eq!(step(progress, 32), Step::Relays);
    }

    #[test]
    fn a_busy_destination_is_asked_again_while_there_is_time_and_never_relayed() {
        let mut progress = Progress::new(Admission::Attempt);
        progress.busy(Duration::from_secs(5));
        let again = step(progress, 1);
        assert!(matches!(again, Step::Attempt { pause, .. } if pause == Duration::from_secs(5)));
        assert_eq!(step(progress, 30), Step::PassBusyOn);
        progress.busy(Duration::MAX);
        assert_eq!(step(progress, 1), Step::PassBusyOn);
    }

    proptest! {
        #[test]
        fn every_call_ends_in_time_whatever_the_destination_does(
            answers in prop::collection::vec((any::<bool>(), 0..20_000u64, 0..100u64), 0..100),
            admission in prop::sample::select(vec![Admission::Attempt, Admission::Probe, Admission::Offline]),
        ) {
            let schedule = schedule();
            let mut progress = Progress::new(admission);
            let mut elapsed = Duration::ZERO;
            for (busy, wait, slowness) in answers {
                let Step::Attempt { pause, patience } = progress.next_step(&schedule, elapsed) else {
                    break;
                };
                elapsed += pause + (patience.connect + patience.answer).mul_f64(slowness as f64 / 100.0);
                if busy {
                    progress.busy(Duration::from_millis(wait));
                } else {
                    progress.failed(Assumed::Online);
                }
            }
            let end = elapsed + schedule.relay_deadline() + schedule.answer_hold();
            prop_assert!(end < CALL_BUDGET);
        }
    }
}
