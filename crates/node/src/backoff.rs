//! How long to wait after failures: doubling, bounded, and never at the same time as everybody else.

use std::time::Duration;

/// The wait after so many `failures` in a row: `first` doubled with each, `max` at most, of which between a half and
/// all by `random` in 0..1.
pub(crate) fn backoff(failures: u32, first: Duration, max: Duration, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(30);
    let full = first.saturating_mul(1 << doublings).min(max);
    full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_bound_and_half_of_it_is_left_to_chance() {
        let wait = |failures, random| {
            backoff(failures, Duration::from_secs(1), Duration::from_secs(60), random).as_millis()
        };
        assert_eq!((wait(1, 0.0), wait(1, 0.5), wait(1, 1.0)), (500, 750, 1000));
        assert_eq!((wait(0, 1.0), wait(2, 1.0), wait(5, 1.0)), (1000, 2000, 16_000));
        assert_eq!((wait(7, 1.0), wait(u32::MAX, 0.0)), (60_000, 30_000));
        assert_eq!((wait(1, -9.0), wait(1, 9.0)), (500, 1000), "chance has its own bounds");
    }

    proptest! {
        #[test]
        fn a_wait_grows_with_failures_and_stays_bounded(failures in 1u32.., random in 0.0f64..1.0) {
            let (first, max) = (Duration::from_secs(1), Duration::from_secs(60));
            let wait = backoff(failures, first, max, random);
            prop_assert!(wait >= first / 2 && wait <= max);
            prop_assert!(backoff(failures.saturating_add(1), first, max, random) >= wait);
        }
    }
}
