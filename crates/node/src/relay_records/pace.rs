//! Decides when a server's relays are looked for again.
//!
//! Pure: the caller passes the time.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// Who has a record, or answers that it has none, is asked again after this: relays change seldom.
const AFTER_ANSWER: Duration = Duration::from_secs(24 * 3600);

/// After a search that found nothing; doubles with each further one.
const AFTER_NOTHING: Duration = Duration::from_secs(120);

/// No search that found nothing counts for longer, so that whoever gets a relay is found within the hour.
const AFTER_NOTHING_MAX: Duration = Duration::from_secs(3600);

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whoever was asked answered; or a record is known.
    Answered,
    /// Nothing was found.
    Nothing,
}

/// When somebody was looked for last, and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    outcome: Outcome,
    wait: Duration,
    at: Timestamp,
}

impl Looked {
    /// The record of looking at `now`, given the time before.
    pub(super) fn next(before: Option<Self>, outcome: Outcome, now: Timestamp) -> Self {
        let wait = match (outcome, before) {
            (Outcome::Answered, _) => AFTER_ANSWER,
            (Outcome::Nothing, Some(Self { outcome: Outcome::Nothing, wait, .. })) => {
                (wait * 2).min(AFTER_NOTHING_MAX)
            }
            (Outcome::Nothing, _) => AFTER_NOTHING,
        };
        Self { outcome, wait, at: now }
    }

    /// Whether it is time to look again. A clock that was set back does not make it later.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now >= self.at.after(self.wait) || self.at > now.after(self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_for_a_day_and_nothing_for_ever_longer_up_to_an_hour() {
        let mut now = Timestamp::from_millis(1_700_000_000_000);
        let mut looked = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let next = Looked::next(looked, Outcome::Nothing, now);
            let before = now;
            while !next.is_over(now) {
                now = now.after(Duration::from_secs(60));
            }
            waits.push(now.since(before).as_secs() / 60);
            looked = Some(next);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
        let answered = Looked::next(looked, Outcome::Answered, now);
        assert!(!answered.is_over(now.after(Duration::from_secs(23 * 3600))));
        assert!(answered.is_over(now.after(AFTER_ANSWER)));
        assert!(answered.is_over(now.before(2 * AFTER_ANSWER)), "the clock was set back");
        let nothing = Looked::next(Some(answered), Outcome::Nothing, now);
        assert!(nothing.is_over(now.after(AFTER_NOTHING)));
    }
}
