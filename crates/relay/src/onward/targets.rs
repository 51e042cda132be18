//! Decides how often names that are not known to answer are tried at one place, however many of them lead there.
//!
//! Pure; the caller passes the time. Whoever owns a domain can make up any number of names that lead to a third party.

use std::time::Duration;

use restante_federation::BoundedMap;
use tokio::time::Instant;

use super::schedule::Admitted;

/// Between two such tries at one place.
const TRIES_APART: Duration = Duration::from_secs(2);

/// Places that are remembered.
const TARGETS_MAX: usize = 4096;

/// Names that wait for their turn at one place beyond this come again without one.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// When each place is free again.
pub(crate) struct Targets(BoundedMap<String, Instant>);

impl Default for Targets {
    fn default() -> Self {
        Self(BoundedMap::new(TARGETS_MAX))
    }
}

impl Targets {
    /// A try at `target`, now; or when its turn comes, and whether that is kept for it.
    pub(crate) fn admit(&mut self, target: &str, now: Instant) -> Result<(), (Instant, Admitted)> {
        let free = self.0.get(target).copied().unwrap_or(now).max(now);
        if free > now + WAIT_MAX {
            return Err((now + WAIT_MAX, Admitted::No));
        }
        self.0.insert(target.to_owned(), free + TRIES_APART);
        if free > now { Err((free, Admitted::Yes)) } else { Ok(()) }
    }

    /// Somebody answers there: the others need not wait any longer than they do.
    pub(crate) fn answered(&mut self, target: &str) {
        self.0.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_names_that_lead_to_one_place_have_their_turns_one_after_the_other() {
        let (mut targets, now) = (Targets::default(), Instant::now());
        assert_eq!(targets.admit("victim.example", now), Ok(()));
        for number in 1..100 {
            let turn = now + TRIES_APART * number;
            assert_eq!(targets.admit("victim.example", now), Err((turn, Admitted::Yes)));
        }
        assert_eq!(targets.admit("b.example", now), Ok(()));
        for _ in 0..10_000 {
            let _ = targets.admit("victim.example", now);
        }
        let without = Err((now + WAIT_MAX, Admitted::No));
        assert_eq!(targets.admit("victim.example", now), without);
        targets.answered("victim.example");
        assert_eq!(targets.admit("victim.example", now), Ok(()));
    }
}
