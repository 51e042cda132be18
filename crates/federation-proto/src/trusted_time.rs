//! Decides by which time mail expires: a clock may be wrong, and what has expired is gone.
//!
//! Pure: the caller passes what the clock shows, and how long the program has been up.

use std::time::Duration;

use crate::Timestamp;

/// A step ahead of this or less is believed at once: a machine that was off or asleep for a weekend makes one, and of the thirty days
/// that mail has it costs at most two.
const STEP_MAX: Duration = Duration::from_hours(48);

/// How long a larger one is doubted. A time server sets a clock right within minutes of the start; and the owners of mail whose time ran
/// out while a relay was off may still collect it.
const DOUBTED_FOR: Duration = Duration::from_mins(30);

/// The time by which mail expires.
#[derive(Debug, Clone, Copy)]
pub struct TrustedTime {
    time: Timestamp,
    up: Duration,
    doubted_since: Option<Duration>,
}

/// What changed with a look at the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockChange {
    /// Nothing.
    None,
    /// The clock is this much ahead of what was to be expected, and is not believed.
    Doubted(Duration),
    /// It is believed again.
    Believed,
}

impl TrustedTime {
    /// When the program, which is up for `up`, was here last, it was this time.
    pub fn since(time: Timestamp, up: Duration) -> Self {
        Self { time, up, doubted_since: None }
    }

    /// The time, if the clock shows `clock` now.
    pub fn look(&mut self, clock: Timestamp, up: Duration) -> (Timestamp, ClockChange) {
        let expected = self.time.after(up.saturating_sub(self.up));
        let ahead = clock.since(expected);
        let change = match self.doubted_since {
            None if ahead <= STEP_MAX => ClockChange::None,
            Some(since) if ahead <= STEP_MAX || up.saturating_sub(since) >= DOUBTED_FOR => {
                self.doubted_since = None;
                ClockChange::Believed
            }
            Some(_) => ClockChange::None,
            None => {
                self.doubted_since = Some(up);
                ClockChange::Doubted(ahead)
            }
        };
        self.time = if self.doubted_since.is_some() { expected } else { clock };
        self.up = up;
        (self.time, change)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const MINUTE: Duration = Duration::from_mins(1);
    const MONTH: Duration = Duration::from_hours(30 * 24);

    #[test]
    fn a_clock_that_a_time_server_sets_right_again_ends_nothing_before_its_time() {
        let mut trusted = TrustedTime::since(START, Duration::ZERO);
        let (time, change) = trusted.look(START.after(MONTH), MINUTE);
        assert_eq!(time, START.after(MINUTE));
        assert!(matches!(change, ClockChange::Doubted(ahead) if ahead == MONTH - MINUTE));
        let (time, change) = trusted.look(START.after(MONTH + MINUTE), 2 * MINUTE);
        assert_eq!((time, change), (START.after(2 * MINUTE), ClockChange::None));
        let right = START.after(3 * MINUTE);
        assert_eq!(trusted.look(right, 3 * MINUTE), (right, ClockChange::Believed));
        assert_eq!(trusted.look(right.after(MINUTE), 4 * MINUTE).1, ClockChange::None);
    }

    #[test]
    fn a_relay_that_was_off_for_a_month_believes_its_clock_in_the_end() {
        let mut trusted = TrustedTime::since(START, Duration::ZERO);
        let now = START.after(MONTH);
        assert!(trusted.look(now, Duration::ZERO).0 < now);
        let late = now.after(DOUBTED_FOR);
        let just_before = DOUBTED_FOR.saturating_sub(Duration::from_millis(1));
        assert_eq!(trusted.look(late, just_before), (START.after(just_before), ClockChange::None));
        assert_eq!(trusted.look(late, DOUBTED_FOR), (late, ClockChange::Believed));
    }

    #[test]
    fn a_night_off_and_a_clock_that_goes_back_are_believed_at_once() {
        let mut trusted = TrustedTime::since(START, Duration::ZERO);
        for clock in [START.after(STEP_MAX), START.before(MONTH), START.before(MONTH / 2 * 3)] {
            assert_eq!(trusted.look(clock, Duration::ZERO), (clock, ClockChange::None));
        }
    }

    proptest! {
        #[test]
        fn the_time_is_never_ahead_of_the_clock_nor_of_what_it_may_be_unless_it_was_doubted_for_long(
            looks in prop::collection::vec((0_u64..90 * 24 * 60, 0_u64..20), 1..60)
        ) {
            let mut trusted = TrustedTime::since(START, Duration::ZERO);
            let (mut last, mut up) = (START, Duration::ZERO);
            let mut doubted_at = None;
            for (clock, minutes) in looks {
                let clock = START.after(clock as u32 * MINUTE);
                let passed = minutes as u32 * MINUTE;
                up += passed;
                let (time, change) = trusted.look(clock, up);
                prop_assert!(time <= clock);
                if let ClockChange::Doubted(_) = change {
                    doubted_at = Some(up);
                }
                let was_doubted_for_long = doubted_at.is_some_and(|at| up - at >= DOUBTED_FOR);
                prop_assert!(was_doubted_for_long || time <= last.after(passed + STEP_MAX));
                if change == ClockChange::Believed {
                    doubted_at = None;
                }
                last = time;
            }
        }
    }
}
