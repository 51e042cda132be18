//! Decides how much to ask a relay for at once: little over a slow line, so that a cut loses little, and much over a fast one.
//!
//! Pure: how long answers took comes in.

use std::time::Duration;

use restante_relay_api::limits::{COLLECT_BYTES_MAX, COLLECT_ENVELOPES_MAX};

/// Envelopes that are asked for at first: what is judged together, so that strangers whose keys take long hold up little.
const ENVELOPES_FIRST: u64 = 125;

/// Bytes that are asked for at first: a second of 1 Mbit/s, be they hardly compressed.
const BYTES_FIRST: u64 = 128 * 1024;

/// Fewer are never asked for.
const ENVELOPES_MIN: u64 = 8;

/// Fewer are never asked for; one larger envelope comes alone.
const BYTES_MIN: u64 = 32 * 1024;

/// What came faster is asked for twice as large next time, which then takes no longer than [`SLOW`] over the same line. With a
/// round trip of 300 ms between answers the line is busy for nine tenths of the time.
const QUICK: Duration = Duration::from_millis(2500);

/// What took longer is asked for half as large next time.
const SLOW: Duration = Duration::from_secs(5);

/// How much to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    envelopes: u64,
    bytes: u64,
}

/// Whether the relay gave all that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gave {
    /// There is more, so that a larger answer was possible.
    APart,
    /// How large an answer might have been does not show.
    All,
}

impl Pace {
    /// Before anything is known of the line.
    pub(super) fn first() -> Self {
        Self { envelopes: ENVELOPES_FIRST, bytes: BYTES_FIRST }
    }

    /// Envelopes at most.
    pub(super) fn envelopes(self) -> u64 {
        self.envelopes
    }

    /// Bytes at most.
    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }

    /// The pace after an answer that took so long.
    #[must_use]
    pub(super) fn after(self, took: Duration, gave: Gave) -> Self {
        if took > SLOW {
            self.slower()
        } else if took < QUICK && gave == Gave::APart {
            self.faster()
        } else {
            self
        }
    }

    fn faster(self) -> Self {
        Self {
            envelopes: (self.envelopes * 2).min(COLLECT_ENVELOPES_MAX as u64),
            bytes: (self.bytes * 2).min(COLLECT_BYTES_MAX as u64),
        }
    }

    /// The pace after something that took too long, or broke off.
    #[must_use]
    pub(super) fn slower(self) -> Self {
        Self {
            envelopes: (self.envelopes / 2).max(ENVELOPES_MIN),
            bytes: (self.bytes / 2).max(BYTES_MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer of so many bytes over a line of `rate` bytes a second, with 300 ms there and back.
    fn over(bytes: u64, rate: u64) -> Duration {
        Duration::from_millis(300) + Duration::from_secs(bytes) / u32::try_from(rate).unwrap()
    }

    #[test]
    fn over_a_fast_line_it_grows_to_the_largest_answer_and_stays_there() {
        let mut pace = Pace::first();
        for _ in 0..10 {
            pace = pace.after(Duration::from_millis(50), Gave::APart);
        }
        let largest = (COLLECT_ENVELOPES_MAX as u64, COLLECT_BYTES_MAX as u64);
        assert_eq!((pace.envelopes(), pace.bytes()), largest);
    }

    #[test]
    fn what_held_all_that_there_was_says_nothing_of_the_line() {
        let first = Pace::first();
        assert_eq!(first.after(Duration::ZERO, Gave::All), first);
        assert_ne!(first.after(SLOW * 2, Gave::All), first);
    }

    proptest! {
        /// Over any line from 64 kbit/s on it settles where an answer takes no longer than it should, and the line is busy.
        #[test]
        fn an_answer_takes_seconds_at_most_whatever_the_line(rate in 8_000u64..1_000_000) {
            let mut pace = Pace::first();
            for _ in 0..20 {
                pace = pace.after(over(pace.bytes(), rate), Gave::APart);
            }
            let took = over(pace.bytes(), rate);
            prop_assert!(took <= SLOW, "{took:?}");
            let is_largest = pace.bytes() == COLLECT_BYTES_MAX as u64;
            prop_assert!(is_largest || took >= QUICK, "{took:?}");
        }

        #[test]
        fn it_stays_within_its_bounds(answers in proptest::collection::vec(0u64..20_000, 0..60)) {
            let mut pace = Pace::first();
            for millis in answers {
                pace = match millis {
                    0..1000 => pace.slower(),
                    _ => pace.after(Duration::from_millis(millis), Gave::APart),
                };
                prop_assert!((ENVELOPES_MIN..=COLLECT_ENVELOPES_MAX as u64).contains(&pace.envelopes()));
                prop_assert!((BYTES_MIN..=COLLECT_BYTES_MAX as u64).contains(&pace.bytes()));
            }
        }
    }
}
