//! Notices that this node was away and is back: it was started, its relays answer again, or the machine slept.
//!
//! What others tried meanwhile failed, and they have backed off; `waking.rs` tells them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation_proto::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// Relays that answer after so long a silence of all of them show that we were cut off: homeservers begin to back off after a
/// minute, and a shorter silence is a restart of a relay or of a router.
const AWAY_MIN: Duration = Duration::from_secs(120);

/// The machine slept if the time of day went on by so much more than the time that programs see.
const SLEPT_MIN: Duration = Duration::from_secs(60);

/// Whether this node is reached, as far as it can tell. Pure: the times are arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Presence {
    /// Since when no relay has answered, though some were asked.
    cut_off_since: Option<Instant>,
    /// Both clocks, when they were read last.
    clocks: Option<(Instant, Timestamp)>,
}

impl Presence {
    fn relay_failed(&mut self, now: Instant) {
        self.cut_off_since.get_or_insert(now);
    }

    /// For how long we were away until now, if we were.
    fn relay_answered(&mut self, now: Instant) -> Option<Duration> {
        let silence = now.duration_since(self.cut_off_since.take()?);
        (silence >= AWAY_MIN).then_some(silence)
    }

    /// Whether the machine slept since the clocks were read last.
    fn read_clocks(&mut self, now: Instant, wall: Timestamp) -> bool {
        let before = self.clocks.replace((now, wall));
        before.is_some_and(|(then, wall_then)| {
            wall.since(wall_then) >= now.duration_since(then) + SLEPT_MIN
        })
    }
}

/// Why we are back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Comeback {
    /// The node was started.
    #[default]
    Started,
    /// Our relays answer again, after so long a silence.
    RelaysAnswer(Duration),
    /// The machine slept.
    Slept,
}

/// Tells when we are back. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Comebacks {
    presence: Arc<Mutex<Presence>>,
    last: watch::Sender<Comeback>,
}

impl Comebacks {
    /// One of our relays could not be reached.
    pub(crate) fn relay_failed(&self) {
        self.presence().relay_failed(Instant::now());
    }

    /// One of our relays answered.
    pub(crate) fn relay_answered(&self) {
        let silence = self.presence().relay_answered(Instant::now());
        if let Some(silence) = silence {
            tracing::info!(?silence, "our relays answer again");
            self.last.send_replace(Comeback::RelaysAnswer(silence));
        }
    }

    /// To be called regularly. Whether the machine slept since the last time: connections that stand may lead nowhere.
    pub(crate) fn read_clocks(&self, wall: Timestamp) -> bool {
        let has_slept = self.presence().read_clocks(Instant::now(), wall);
        if has_slept {
            tracing::info!("this machine slept");
            self.last.send_replace(Comeback::Slept);
        }
        has_slept
    }

    /// The last comeback; changes with each.
    pub(crate) fn watch(&self) -> watch::Receiver<Comeback> {
        self.last.subscribe()
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn whoever_was_long_without_any_relay_is_back_when_one_answers() {
        let (mut presence, begun) = (Presence::default(), Instant::now());
        assert_eq!(presence.relay_answered(begun), None);
        presence.relay_failed(begun);
        presence.relay_failed(begun + Duration::from_secs(100));
        assert_eq!(presence.relay_answered(begun + AWAY_MIN), Some(AWAY_MIN));
        assert_eq!(presence.relay_answered(begun + 2 * AWAY_MIN), None);
    }

    #[test]
    fn one_relay_that_is_down_makes_nobody_away() {
        let (mut presence, begun) = (Presence::default(), Instant::now());
        for seconds in (0..1000).step_by(50) {
            presence.relay_failed(begun + Duration::from_secs(seconds));
            assert_eq!(presence.relay_answered(begun + Duration::from_secs(seconds + 40)), None);
        }
    }

    #[test]
    fn a_machine_that_slept_is_back_and_one_whose_clock_drifts_is_not() {
        let (mut presence, begun) = (Presence::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(!presence.read_clocks(begun, MORNING));
        assert!(!presence.read_clocks(begun + 30 * second, MORNING.after(35 * second)));
        assert!(presence.read_clocks(begun + 60 * second, MORNING.after(3600 * second)));
        // A clock that is set back is no sleep.
        assert!(!presence.read_clocks(begun + 90 * second, MORNING));
    }
}
