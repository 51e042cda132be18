//! Decides when a server's keys may be asked for again.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// After an answer of the server itself: a key that it does not list is looked for again after this.
pub(super) const AFTER_ANSWER: Duration = Duration::from_mins(1);
/// After a first failure; doubles with each further one. Short, because a server that has just started collects its
/// mail before others can reach it.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// No failure counts for longer, so that a server that is back is noticed.
const AFTER_FAILURES_MAX: Duration = Duration::from_mins(10);

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server itself answered.
    Answered,
    /// It did not, and nobody else could help; why.
    Failed(String),
}

/// When a server was asked for last, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) outcome: Outcome,
    wait: Duration,
    at: Timestamp,
}

impl Asked {
    /// The record of an attempt at `now`, given the one before it.
    pub(super) fn next(previous: Option<&Self>, outcome: Outcome, now: Timestamp) -> Self {
        let wait = match (&outcome, previous) {
            (Outcome::Answered, _) => AFTER_ANSWER,
            (Outcome::Failed(_), Some(Self { outcome: Outcome::Failed(_), wait, .. })) => {
                (*wait * 2).min(AFTER_FAILURES_MAX)
            }
            (Outcome::Failed(_), _) => AFTER_FAILURE,
        };
        Self { outcome, wait, at: now }
    }

    /// How long nobody is to be asked; `None` when it is time. A clock that was set back does not make it longer.
    pub(super) fn wait_at(&self, now: Timestamp) -> Option<Duration> {
        let left = self.at.after(self.wait).since(now).min(self.wait);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_twice_as_long_each_time_up_to_ten_minutes() {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut asked = None;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = Asked::next(asked.as_ref(), Outcome::Failed("down".into()), now);
            let wait = next.wait_at(now).unwrap();
            waits.push(wait.as_secs());
            now = now.after(wait);
            assert_eq!(next.wait_at(now), None);
            asked = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        let answered = Asked::next(asked.as_ref(), Outcome::Answered, now);
        let failed = Asked::next(Some(&answered), Outcome::Failed("down".into()), now);
        assert_eq!(failed.wait_at(now), Some(AFTER_FAILURE));
    }
}
