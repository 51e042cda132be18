//! What is taken from many measurements: the middle, and what a share of them stays below.

use std::time::Duration;

/// How long each of many requests took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// What `share` of them stayed below or at, milliseconds; 0 of none.
    pub(crate) fn milliseconds(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let index = ((sorted.len() as f64 * share) as usize).min(last);
        sorted.get(index).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }
}

/// The middle one; of an even number the mean of the two in the middle. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_turn_does_not_move_the_median() {
        assert!((median(&[3.0, 1.0, 900.0, 2.0, 4.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[4.0, 2.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn a_latency_is_what_that_share_stayed_below() {
        let mut latencies = Latencies::default();
        for number in (1..=100).rev() {
            latencies.add(Duration::from_millis(number));
        }
        assert!((latencies.milliseconds(0.5) - 51.0).abs() < 1e-9);
        assert!((latencies.milliseconds(0.99) - 100.0).abs() < 1e-9);
        assert!((latencies.milliseconds(1.0) - 100.0).abs() < 1e-9);
        assert!(Latencies::default().milliseconds(0.5).abs() < 1e-9);
    }
}
