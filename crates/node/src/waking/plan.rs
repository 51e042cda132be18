//! Decides whom to wake after a comeback, and when to try again.
//!
//! Pure: who was met, who is known to be awake, and the times come in.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};

/// Waits before each further wave for those that could not be reached: the network may not be up yet when a machine wakes, and
/// who is down now may be up soon. Who is down for longer shows itself: it delivers to us, or its relays hold what we send.
const AGAIN_AFTER: [Duration; 3] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(300)];

/// Between two comebacks that are told: a node that falls over and over, or a line that comes and goes, must not call hundreds
/// of servers each time.
const AGAIN_MIN: Duration = Duration::from_secs(15 * 60);

/// Those that are still to be woken after one comeback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Whom to wake, in this order.
    pub(super) asleep: Vec<ServerName>,
    waves: usize,
}

impl Plan {
    /// Everybody of `met`, but for those that were met between `back_at` and `now`: they know that we are back.
    pub(super) fn new(
        met: Vec<(ServerName, Timestamp)>,
        back_at: Timestamp,
        now: Timestamp,
    ) -> Self {
        // What lies ahead was noted by a clock that was wrong.
        let is_awake = |at: Timestamp| at >= back_at && at <= now;
        let asleep = met.into_iter().filter(|(_, at)| !is_awake(*at)).map(|(server, _)| server);
        Self { asleep: asleep.collect(), waves: 0 }
    }

    /// When the first wave begins: now, or [`AGAIN_MIN`] after the last comeback that was told.
    pub(super) fn begins_at(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let earliest = last.filter(|last| *last <= now).map(|last| last.after(AGAIN_MIN));
        earliest.map_or(now, |earliest| earliest.max(now))
    }

    /// After a wave that did not reach `unreached`: how long to wait for the next; `None` if there is none.
    pub(super) fn next_wave(&mut self, unreached: Vec<ServerName>) -> Option<Duration> {
        self.asleep = unreached;
        let wait = AGAIN_AFTER.get(self.waves).copied().filter(|_| !self.asleep.is_empty());
        self.waves += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    #[test]
    fn who_called_since_we_are_back_is_awake() {
        let at = Timestamp::from_millis;
        let met = ["b.test", "c.test", "d.test", "e.test"].map(name).into_iter();
        let met = met.zip([11, 9, 10, 99].map(at)).collect();
        let asleep = [name("c.test"), name("e.test")];
        assert_eq!(Plan::new(met, at(10), at(12)).asleep, asleep);
    }

    #[test]
    fn comebacks_that_follow_each_other_closely_are_told_once_in_a_while() {
        let at = |minutes: u64| Timestamp::from_millis(minutes * 60_000);
        assert_eq!(Plan::begins_at(None, at(60)), at(60));
        assert_eq!(Plan::begins_at(Some(at(50)), at(60)), at(65));
        assert_eq!(Plan::begins_at(Some(at(40)), at(60)), at(60));
        // By a clock that was wrong.
        assert_eq!(Plan::begins_at(Some(at(600)), at(60)), at(60));
    }

    #[test]
    fn who_is_not_reached_is_tried_a_few_times_and_then_left_alone() {
        let met = vec![(name("b.test"), Timestamp::from_millis(1))];
        let mut plan = Plan::new(met, Timestamp::from_millis(2), Timestamp::from_millis(3));
        let mut waves = 0;
        while plan.next_wave(vec![name("b.test")]).is_some() {
            waves += 1;
        }
        assert_eq!(waves, AGAIN_AFTER.len());
        assert_eq!(Plan { asleep: vec![], waves: 0 }.next_wave(vec![]), None);
    }
}
