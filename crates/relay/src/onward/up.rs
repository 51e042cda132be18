//! Remembers which destinations answered lately, so that they are sent mail without being asked first.
//!
//! Pure; the caller passes the time.

use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::time::Instant;

/// What is lately.
const LATELY: Duration = Duration::from_secs(3600);

/// Destinations that are remembered. Others are asked once more.
const DESTINATIONS_MAX: usize = 4096;

/// When each answered last, if nothing has failed since.
pub(crate) struct AnsweredLately(BoundedMap<ServerName, Instant>);

impl Default for AnsweredLately {
    fn default() -> Self {
        Self(BoundedMap::new(DESTINATIONS_MAX))
    }
}

impl AnsweredLately {
    pub(crate) fn answered(&mut self, destination: &ServerName, now: Instant) {
        self.0.insert(destination.clone(), now);
    }

    pub(crate) fn failed(&mut self, destination: &ServerName) {
        self.0.remove(destination);
    }

    pub(crate) fn answered_lately(&mut self, destination: &ServerName, now: Instant) -> bool {
        self.0.get(destination).is_some_and(|at| now.duration_since(*at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_an_hour_and_until_something_fails() {
        let (mut up, now) = (AnsweredLately::default(), Instant::now());
        let b: ServerName = "b.example".parse().unwrap();
        assert!(!up.answered_lately(&b, now));
        up.answered(&b, now);
        assert!(up.answered_lately(&b, now + LATELY / 2));
        assert!(!up.answered_lately(&b, now + LATELY));
        up.answered(&b, now);
        up.failed(&b);
        assert!(!up.answered_lately(&b, now));
    }
}
