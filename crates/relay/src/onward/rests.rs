//! Remembers whose mail a destination does not take at present, though it answers.
//!
//! Pure; the caller passes the time.

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::time::Instant;

use super::Backoff;

/// Pairs of destination and origin. What is forgotten is tried once more.
const RESTS_MAX: usize = 8192;

/// How often a destination may say that it can't check an origin's signature, until that is its last word. With an hour between, most
/// of these tries fall into four days, within which somebody who was away for a night or a weekend is back with its keys.
const UNVERIFIED_TRIES_MAX: u32 = 100;

/// Whose mail rests, by destination and origin.
pub(crate) struct Rests(BoundedMap<(ServerName, ServerName), Rest>);

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    unverified: u32,
    /// Transactions in a row that failed though the destination was up.
    failures: u32,
}

/// What becomes of mail whose signature could not be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// It is tried again then.
    Rests(Instant),
    /// It was tried often enough.
    GivenUp,
}

impl Default for Rests {
    fn default() -> Self {
        Self(BoundedMap::new(RESTS_MAX))
    }
}

impl Rests {
    /// Until when mail from `origin` to `destination` rests, if it does.
    pub(crate) fn until(
        &mut self,
        destination: &ServerName,
        origin: &ServerName,
        now: Instant,
    ) -> Option<Instant> {
        let rest = self.0.get(&(destination.clone(), origin.clone()))?;
        Some(rest.until).filter(|until| *until > now)
    }

    /// It is to be tried again at `until`.
    pub(crate) fn rest(&mut self, destination: &ServerName, origin: &ServerName, until: Instant) {
        let key = (destination.clone(), origin.clone());
        let before =
            self.0.get(&key).copied().unwrap_or(Rest { until, unverified: 0, failures: 0 });
        self.0.insert(key, Rest { until, ..before });
    }

    /// What `origin` left first failed, though the destination was up: it may be the transaction. It is to be tried again when this says.
    pub(crate) fn failed(
        &mut self,
        destination: &ServerName,
        origin: &ServerName,
        (now, backoff, jitter): (Instant, Backoff, f64),
    ) -> Instant {
        let key = (destination.clone(), origin.clone());
        let (unverified, failures) =
            self.0.get(&key).map_or((0, 0), |rest| (rest.unverified, rest.failures));
        let failures = failures.saturating_add(1);
        let until = now + backoff.after(failures, jitter);
        self.0.insert(key, Rest { until, unverified, failures });
        until
    }

    /// The destination could not check the signature: a stock homeserver asks the origin for its key, which may be offline.
    pub(crate) fn unverified(
        &mut self,
        destination: &ServerName,
        origin: &ServerName,
        (now, backoff, jitter): (Instant, Backoff, f64),
    ) -> Unverified {
        let key = (destination.clone(), origin.clone());
        let unverified = self.0.get(&key).map_or(0, |rest| rest.unverified).saturating_add(1);
        let until = now + backoff.after(unverified, jitter);
        // What is given up is not forgotten: the rest of the origin's mail would take as long again, each of it.
        let rests_until = if unverified >= UNVERIFIED_TRIES_MAX { now } else { until };
        self.0.insert(key, Rest { until: rests_until, unverified, failures: 0 });
        if unverified >= UNVERIFIED_TRIES_MAX {
            return Unverified::GivenUp;
        }
        Unverified::Rests(until)
    }

    /// It took something of it.
    pub(crate) fn took(&mut self, destination: &ServerName, origin: &ServerName) {
        self.0.remove(&(destination.clone(), origin.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_checked_rests_longer_and_longer_and_is_given_up_in_the_end() {
        let backoff = Backoff { first: Duration::from_secs(30), max: Duration::from_secs(3600) };
        let b: ServerName = "b.example".parse().unwrap();
        let a: ServerName = "a.example".parse().unwrap();
        let c: ServerName = "c.example".parse().unwrap();
        let (mut rests, begun) = (Rests::default(), Instant::now());
        let (mut now, mut tries) = (begun, 1);
        while let Unverified::Rests(until) = rests.unverified(&b, &a, (now, backoff, 1.0)) {
            assert_eq!(rests.until(&b, &a, now), Some(until));
            assert_eq!(rests.until(&b, &a, until), None);
            assert_eq!(rests.until(&b, &c, now), None);
            now = until;
            tries += 1;
        }
        assert_eq!(tries, UNVERIFIED_TRIES_MAX);
        let days = now.duration_since(begun).as_secs() / (24 * 3600);
        assert!((3..=5).contains(&days), "{days}");
        assert_eq!(rests.unverified(&b, &a, (now, backoff, 1.0)), Unverified::GivenUp);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_begins_anew() {
        let b: ServerName = "b.example".parse().unwrap();
        let a: ServerName = "a.example".parse().unwrap();
        let (mut rests, now) = (Rests::default(), Instant::now());
        rests.rest(&b, &a, now + Duration::from_secs(9));
        assert!(rests.until(&b, &a, now).is_some());
        rests.took(&b, &a);
        assert_eq!(rests.until(&b, &a, now), None);
    }
}
