//! Decides whether an origin has come back: then its mail rests for a while, so that it can deliver that itself.
//!
//! Pure; the caller passes the time.

use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::time::Instant;

/// Whoever has not called for so long was away: a node that waits for mail calls twice as often.
const AWAY_AFTER: Duration = Duration::from_secs(120);

/// Callers that are remembered. Whoever is forgotten counts as back once more.
const CALLERS_MAX: usize = 8192;

/// Who called last when, and until when its mail rests.
pub(crate) struct Returns(BoundedMap<ServerName, Call>);

#[derive(Debug, Clone, Copy)]
struct Call {
    last: Instant,
    rests_until: Instant,
}

impl Default for Returns {
    fn default() -> Self {
        Self(BoundedMap::new(CALLERS_MAX))
    }
}

impl Returns {
    /// `server` calls.
    pub(crate) fn heard(&mut self, server: &ServerName, pause: Duration, now: Instant) {
        let before = self.0.get(server).copied();
        let rests_until = match before {
            Some(call) if now.duration_since(call.last) < AWAY_AFTER => call.rests_until,
            _ => now + pause,
        };
        self.0.insert(server.clone(), Call { last: now, rests_until });
    }

    /// Whether `server` is remembered to have called since the relay's start.
    pub(super) fn has_called(&mut self, server: &ServerName) -> bool {
        self.0.get(server).is_some()
    }

    /// Until when the mail of `origin` rests, if it does.
    pub(crate) fn rests_until(&mut self, origin: &ServerName, now: Instant) -> Option<Instant> {
        self.0.get(origin).map(|call| call.rests_until).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_mail_of_whoever_comes_back_rests_and_that_of_whoever_stays_does_not() {
        let a: ServerName = "a.example".parse().unwrap();
        let (mut returns, begun) = (Returns::default(), Instant::now());
        let pause = Duration::from_secs(90);
        assert_eq!(returns.rests_until(&a, begun), None);

        returns.heard(&a, pause, begun);
        let until = begun + pause;
        assert_eq!(returns.rests_until(&a, begun), Some(until));
        let mut now = begun;
        for _ in 0..10 {
            now += Duration::from_secs(100);
            returns.heard(&a, pause, now);
            assert_eq!(returns.rests_until(&a, now), None);
        }
        now += AWAY_AFTER;
        assert_eq!(returns.rests_until(&a, now), None, "it is away");
        returns.heard(&a, pause, now);
        assert_eq!(returns.rests_until(&a, now), Some(now + pause));
    }
}
