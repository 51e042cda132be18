//! When the requests of an open loop are due: so many a second, whatever becomes of those before. Pure.

use std::time::Duration;

/// Requests at a fixed rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    per_second: f64,
}

impl Schedule {
    /// At least one an hour: a schedule has an end.
    pub(crate) fn of(per_second: f64) -> Self {
        Self { per_second: per_second.max(1.0 / 3600.0) }
    }

    /// When the request of that number, from 0, is due after the beginning.
    pub(crate) fn due(&self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / self.per_second)
    }
}

/// Requests that make up a turn of `seconds` at `per_second`, of which each has `bytes` in memory beforehand.
pub(crate) fn turn_of(per_second: f64, seconds: f64, bytes: usize) -> usize {
    let room = PREPARED_BYTES_MAX / bytes.max(1);
    ((per_second * seconds) as usize).min(room).max(TURN_REQUESTS_MIN)
}

/// What is signed before a turn begins: small beside the memory of any machine that builds this.
const PREPARED_BYTES_MAX: usize = 192 * 1024 * 1024;

/// Fewer say nothing.
const TURN_REQUESTS_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_however_many_there_are() {
        let schedule = Schedule::of(400.0);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_micros(2500));
        assert_eq!(schedule.due(4_000_000), Duration::from_secs(10_000));
        assert!(Schedule::of(0.0).due(1) <= Duration::from_secs(3600));
    }

    #[test]
    fn a_turn_is_as_long_as_wanted_unless_its_requests_would_fill_the_memory() {
        assert_eq!(turn_of(1000.0, 2.0, 4096), 2000);
        assert_eq!(turn_of(1000.0, 2.0, 1024 * 1024), 192);
        assert_eq!(turn_of(1.0, 2.0, 4096), 32);
        assert_eq!(turn_of(f64::INFINITY, 2.0, 192 * 1024 * 1024), 32);
    }
}
