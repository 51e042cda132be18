//! Spaces questions so that the homeserver's own rate limit never slows them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Synapse delays each request of a server beyond 10 in a second (`rc_federation.sleep_limit`) by half a second.
const QUESTIONS_PER_SECOND: u32 = 8;

/// Questions that may be asked at once after a quiet time.
const BURST: u32 = 4;

pub(super) struct Pace {
    /// When the next question would be due if there were no burst.
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next: Mutex::new(Instant::now()) }
    }

    /// Waits for this question's turn; turns are given in the order of the calls.
    pub(super) async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            turn(&mut next, Instant::now())
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// Gives out the turn, and moves `next` on by one interval.
fn turn(next: &mut Instant, now: Instant) -> Instant {
    let interval = Duration::from_secs(1) / QUESTIONS_PER_SECOND;
    let due = (*next).max(now);
    *next = due + interval;
    due.checked_sub(interval * (BURST - 1)).map_or(now, |early| early.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_holds_more_questions_than_the_homeserver_answers_undelayed() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut next = start;
        let turns: Vec<Instant> = (0..100).map(|_| turn(&mut next, start)).collect();
        for (index, first) in turns.iter().enumerate() {
            let within = turns[index..].iter().filter(|t| **t < *first + Duration::from_secs(1));
            assert!(within.count() <= 11);
        }
        assert_eq!(turns[0], start);
        assert!(turns[99] >= start + Duration::from_secs(11));
    }

    #[test]
    fn a_quiet_time_earns_a_burst_and_no_more() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut next = start;
        let later = start + Duration::from_secs(3600);
        let turns: Vec<Instant> = (0..6).map(|_| turn(&mut next, later)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == later).count(), 4);
    }
}
