//! Decides how long each part of one `/send` may take, so that all of it stays below what the homeserver waits.
//!
//! Pure: `elapsed` is the time since the homeserver's request came in.

use std::time::Duration;

use restante_federation::Patience;

use crate::config::DeliverySection;

/// A whole `/send`, all told. Synapse gives up at 60 s and then backs off for ten minutes.
pub(crate) const CALL_BUDGET: Duration = Duration::from_secs(45);

/// What the call needs beside waiting for others: ledger, signatures, and once a day the homeserver's own keys.
const OWN_WORK: Duration = Duration::from_secs(5);

/// What the events of third servers may take to fetch from the homeserver, which gives some hundred a second.
pub(crate) const CAPSULE_WAIT: Duration = Duration::from_secs(4);

/// Longest that relays may take, whatever is configured: direct attempts need the rest.
const RELAY_DEADLINE_MAX: Duration = Duration::from_secs(20);

/// Longest hold of an answer, whatever is configured.
const ANSWER_HOLD_MAX: Duration = Duration::from_secs(5);

/// Longest wait for a connection; a server that is up answers a handshake far sooner.
const CONNECT_MAX: Duration = Duration::from_secs(8);

/// An attempt with less time than this is not begun.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// Pause before the second attempt; doubles for each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The times of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    attempts: u32,
    probe_connect: Duration,
    relay_deadline: Duration,
    answer_hold: Duration,
}

impl From<&DeliverySection> for Schedule {
    /// Values that leave no time for the rest of the call are cut.
    fn from(section: &DeliverySection) -> Self {
        Self {
            attempts: section.attempts_until_offline.max(1),
            probe_connect: section.probe_connect.0.min(CONNECT_MAX),
            relay_deadline: section.relay_deadline.0.min(RELAY_DEADLINE_MAX),
            answer_hold: section.relayed_answer_hold.0.min(ANSWER_HOLD_MAX),
        }
    }
}

impl Schedule {
    /// How long the answer to a relayed `/send` is held.
    pub(crate) fn answer_hold(&self) -> Duration {
        self.answer_hold
    }

    /// How long each relay may take.
    pub(crate) fn relay_deadline(&self) -> Duration {
        self.relay_deadline
    }

    /// What is left for direct attempts after `elapsed`.
    pub(crate) fn direct_time_left(&self, elapsed: Duration) -> Duration {
        let others = self.relay_deadline + self.answer_hold + CAPSULE_WAIT + OWN_WORK;
        CALL_BUDGET.saturating_sub(others).saturating_sub(elapsed)
    }

    /// The pause before attempt number `attempt`, counted from 0.
    pub(crate) fn pause_before(&self, attempt: u32) -> Duration {
        match attempt.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => PAUSE_FIRST.saturating_mul(1 << doublings.min(8)).min(PAUSE_MAX),
        }
    }

    /// The patience of attempt number `attempt` that begins after `elapsed`; `None` when it is too late for one.
    ///
    /// Connecting gets a share, so that every attempt has its turn. An answer gets all that is left: a server that
    /// took the connection is alive, and to send it the same again would only make it slower.
    pub(crate) fn attempt(&self, attempt: u32, elapsed: Duration) -> Option<Patience> {
        let to_come = self.attempts.saturating_sub(attempt).max(1);
        let share = self.direct_time_left(elapsed) / (to_come + 1);
        self.patience(share.min(CONNECT_MAX), elapsed)
    }

    /// The patience of a probe that begins after `elapsed`.
    pub(crate) fn probe(&self, elapsed: Duration) -> Option<Patience> {
        self.patience(self.probe_connect, elapsed)
    }

    fn patience(&self, connect: Duration, elapsed: Duration) -> Option<Patience> {
        let left = self.direct_time_left(elapsed);
        let connect = connect.min(left / 2);
        (left >= ATTEMPT_MIN).then_some(Patience { connect, answer: left - connect })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use restante_federation::config::Period;

    use super::*;

    fn section(attempts: u32, connect: u64, relay: u64, hold: u64) -> DeliverySection {
        DeliverySection {
            attempts_until_offline: attempts,
            probe_connect: Period::seconds(connect),
            relay_deadline: Period::seconds(relay),
            relayed_answer_hold: Period::seconds(hold),
            ..DeliverySection::default()
        }
    }

    #[test]
    fn two_attempts_that_hang_leave_time_for_the_relays() {
        let schedule = Schedule::from(&DeliverySection::default());
        let first = schedule.attempt(0, Duration::ZERO).unwrap();
        assert_eq!(first.connect, CONNECT_MAX);
        let elapsed = first.connect + schedule.pause_before(1);
        let second = schedule.attempt(1, elapsed).unwrap();
        assert_eq!(second.connect, CONNECT_MAX);
        let elapsed = elapsed + second.connect + second.answer;
        assert_eq!(schedule.attempt(2, elapsed), None);
        let end = elapsed + schedule.relay_deadline() + schedule.answer_hold();
        assert!(end < CALL_BUDGET);
    }

    #[test]
    fn attempts_share_what_the_relays_the_hold_the_capsule_and_own_work_leave() {
        let schedule = Schedule::from(&section(9, 3, 10, 1));
        let seconds = Duration::from_secs;
        assert_eq!(schedule.direct_time_left(Duration::ZERO), seconds(45 - 10 - 1 - 4 - 5));
        assert_eq!(schedule.direct_time_left(seconds(24)), seconds(1));
        assert_eq!(schedule.direct_time_left(seconds(60)), Duration::ZERO);
        // Nine connections and an answer have their turn in 25 s.
        let first = schedule.attempt(0, Duration::ZERO).unwrap();
        let (connect, all) = (Duration::from_millis(2500), seconds(25));
        assert_eq!(first, Patience { connect, answer: all - connect });
        let last = schedule.attempt(8, seconds(15)).unwrap();
        assert_eq!(last, Patience { connect: seconds(5), answer: seconds(5) });
        assert!(schedule.attempt(8, seconds(24)).is_some());
        assert_eq!(schedule.attempt(8, Duration::from_millis(24_001)), None);
    }

    #[test]
    fn pauses_grow_and_stay_short() {
        let schedule = Schedule::from(&DeliverySection::default());
        let pauses: Vec<u128> =
            (0..6).map(|attempt| schedule.pause_before(attempt).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 4000]);
        assert_eq!(schedule.pause_before(u32::MAX), PAUSE_MAX);
    }

    proptest! {
        #[test]
        fn whatever_is_configured_every_attempt_ends_in_time(
            attempts in 0..20u32, connect in 0..1000u64, relay in 0..1000u64, hold in 0..1000u64,
            attempt in 0..20u32, elapsed in 0..60_000u64,
        ) {
            let schedule = Schedule::from(&section(attempts, connect, relay, hold));
            let elapsed = Duration::from_millis(elapsed);
            let tries = [schedule.attempt(attempt, elapsed), schedule.probe(elapsed)];
            for patience in tries.into_iter().flatten() {
                let end = elapsed + patience.connect + patience.answer
                    + schedule.relay_deadline() + schedule.answer_hold();
                prop_assert!(end < CALL_BUDGET);
                prop_assert!(patience.answer > Duration::ZERO);
            }
            prop_assert!(schedule.attempt(0, Duration::ZERO).is_some());
        }
    }
}
