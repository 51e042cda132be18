//! The moments of the kills, and time in general.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Calls that a life lasts at most: enough for several shared commits.
const CALLS_PER_LIFE_MAX: usize = 80;

/// A commit takes about so long; within it the moment is random.
const COMMIT_MICROS: u64 = 3000;

/// A start takes about so long.
pub(crate) const START_MICROS: u64 = 15_000;

/// Draws how lives end.
pub(crate) struct Dice(StdRng);

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Killed while it starts.
    Stillborn(Duration),
    /// Killed so long after so many calls.
    Killed(usize, Duration),
    /// Asked to stop after so many calls.
    Stopped(usize),
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub(crate) fn end(&mut self) -> End {
        let calls = self.0.random_range(1..=CALLS_PER_LIFE_MAX);
        match self.0.random_range(0..100) {
            0..6 => End::Stillborn(self.micros(START_MICROS)),
            6..14 => End::Stopped(calls),
            _ => End::Killed(calls, self.micros(COMMIT_MICROS)),
        }
    }

    pub(crate) fn micros(&mut self, max: u64) -> Duration {
        Duration::from_micros(self.0.random_range(0..max))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }
}

/// Lets `time` pass. Nothing is waited for: it is the moment of a kill that is drawn, and any will do.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Longer than anything here takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// What comes of `work`, which has to end.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(DEADLINE, work).await;
    ended.unwrap_or_else(|_| panic!("{what}: not within {} s", DEADLINE.as_secs()))
}
