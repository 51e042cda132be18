//! Decides how long to wait after calls in vain.
//!
//! Pure: the caller passes the jitter.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_secs(30), max: Duration::from_secs(3600) };

    proptest! {
        #[test]
        fn waits_grow_to_their_bound_and_never_beyond(failures in 1..u32::MAX, jitter in -1.0..2.0_f64) {
            let wait = BACKOFF.after(failures, jitter);
            prop_assert!(wait >= BACKOFF.first.mul_f64(0.75) && wait <= BACKOFF.max);
            prop_assert!(BACKOFF.after(failures.saturating_add(1), jitter) >= wait);
        }
    }
}
