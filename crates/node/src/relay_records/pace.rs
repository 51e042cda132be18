//! Decides when a server's relays are looked for again, and which find is an answer.
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

/// What a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Relays are known; there may be a newer record.
    Newer,
    /// None is known, or all that are known refuse: mail waits for another.
    Another,
}

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Whoever was asked answered; or there is what was needed.
    Answered,
    /// Nothing was found that helps.
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

    /// Whether it is time to look again. What was found a while ago is no answer where it is of no use; a clock that was
    /// set back makes nothing later.
    pub(super) fn is_over(&self, need: Need, now: Timestamp) -> bool {
        let wait = match (need, self.outcome) {
            (Need::Another, Outcome::Answered) => AFTER_NOTHING,
            _ => self.wait,
        };
        now >= self.at.after(wait) || self.at > now.after(wait)
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
            while !next.is_over(Need::Another, now) {
                now = now.after(Duration::from_secs(60));
            }
            waits.push(now.since(before).as_secs() / 60);
            looked = Some(next);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
        let answered = Looked::next(looked, Outcome::Answered, now);
        assert!(!answered.is_over(Need::Newer, now.after(Duration::from_secs(23 * 3600))));
        assert!(answered.is_over(Need::Newer, now.after(AFTER_ANSWER)));
        assert!(answered.is_over(Need::Newer, now.before(2 * AFTER_ANSWER)), "set back");
        assert!(!answered.is_over(Need::Another, now), "that was a moment ago");
        assert!(answered.is_over(Need::Another, now.after(AFTER_NOTHING)), "it is of no use");
        let nothing = Looked::next(Some(answered), Outcome::Nothing, now);
        assert!(nothing.is_over(Need::Newer, now.after(AFTER_NOTHING)));
    }
}
