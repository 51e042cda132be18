//! Decides whom to wake after a comeback, and when to try again.
//!
//! Pure: who was met, who is known to be awake, and the times come in.

use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};

/// Waits before each further wave for those that could not be reached: the network may not be up yet when a machine wakes, and
/// who is down now may be up soon. Who is down for longer shows itself: it delivers to us, or its relays hold what we send.
const AGAIN_AFTER: [Duration; 3] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(300)];

/// Those that are still to be woken after one comeback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Whom to wake, in this order.
    pub(super) asleep: Vec<ServerName>,
    waves: usize,
}

impl Plan {
    /// Everybody of `met`, but for those that were met since `back_at`: they know that we are back.
    pub(super) fn new(met: Vec<(ServerName, Timestamp)>, back_at: Timestamp) -> Self {
        let asleep = met.into_iter().filter(|(_, at)| *at < back_at).map(|(server, _)| server);
        Self { asleep: asleep.collect(), waves: 0 }
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
        let met = vec![(name("b.test"), at(11)), (name("c.test"), at(9)), (name("d.test"), at(10))];
        assert_eq!(Plan::new(met, at(10)).asleep, [name("c.test")]);
    }

    #[test]
    fn who_is_not_reached_is_tried_a_few_times_and_then_left_alone() {
        let met = vec![(name("b.test"), Timestamp::from_millis(1))];
        let mut plan = Plan::new(met, Timestamp::from_millis(2));
        let mut waves = 0;
        while plan.next_wave(vec![name("b.test")]).is_some() {
            waves += 1;
        }
        assert_eq!(waves, AGAIN_AFTER.len());
        assert_eq!(Plan { asleep: vec![], waves: 0 }.next_wave(vec![]), None);
    }
}
