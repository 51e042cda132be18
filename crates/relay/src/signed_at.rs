//! Bounds replays of signed requests: each says when it was signed, and no registration may be older than the last one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName, Timestamp};
use restante_relay_api::limits::SIGNED_AT_TOLERANCE;
use tokio::time::Instant;

use crate::errors::Refusal;

/// Servers of which is remembered what they signed last; 68 a second can register or leave before one is put off.
const REMEMBERED_MAX: usize = 8192;

/// What was signed this long before is refused for its age alone: a minute either way.
const REMEMBERED_FOR: Duration = SIGNED_AT_TOLERANCE.saturating_mul(2);

/// When the relay was started.
#[derive(Debug)]
pub(crate) struct Started {
    by_clock: AtomicU64,
    at: Instant,
}

impl Started {
    /// At this time, by the relay's clock.
    pub(crate) fn at(now: Timestamp) -> Self {
        Self { by_clock: AtomicU64::new(now.as_millis()), at: Instant::now() }
    }

    /// How long ago that is, whatever the clock on the wall was set to since.
    pub(crate) fn up(&self) -> Duration {
        self.at.elapsed()
    }

    /// By a clock that shows `now`. One that was ahead at the start and has been set back since would put the start into the
    /// future, and nobody could register until then: it counts from here on.
    pub(crate) fn by(&self, now: Timestamp) -> Timestamp {
        let known = self.by_clock.fetch_min(now.as_millis(), Ordering::Relaxed);
        Timestamp::from_millis(known).min(now)
    }
}

/// Refuses what was not signed at about `now`.
pub(crate) fn check(signed_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    let in_time =
        signed_at <= now.after(SIGNED_AT_TOLERANCE) && now <= signed_at.after(SIGNED_AT_TOLERANCE);
    if in_time {
        return Ok(());
    }
    let text =
        "signed_at lies more than 60 s from this relay's clock; now says what time it is here";
    Err(refusal(text, now))
}

/// The same for a request that changes a registration: [`LastSigned`] is empty when the relay starts, so that what was signed
/// before could be a replay of what it has forgotten. Whoever means it signs anew, by this relay's time.
pub(crate) fn check_change(
    signed_at: Timestamp,
    started: &Started,
    now: Timestamp,
) -> Result<(), Refusal> {
    check(signed_at, now)?;
    if signed_at >= started.by(now) {
        return Ok(());
    }
    let text = "This relay was started after signed_at; sign anew, now says what time it is here";
    Err(refusal(text, now))
}

/// Carries the relay's time, so that a node with a bad clock can correct by it.
fn refusal(text: &str, now: Timestamp) -> Refusal {
    let error = MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text);
    error.detail("now", now.as_millis()).into()
}

/// SHA-256 of a request's body.
pub(crate) type Digest = [u8; 32];

/// The last request to register or leave of each server, as long as one before it could be replayed. A registration
/// that is replayed would undo that its server has left, and the reverse.
#[derive(Default)]
pub(crate) struct LastSigned(Mutex<HashMap<ServerName, (Timestamp, Digest)>>);

impl LastSigned {
    /// Takes note of a request that [`check`] found in time; refuses one that was signed before the last. The last one
    /// may come again: its answer may have got lost. Tells what was noted before.
    pub(crate) fn note(
        &self,
        server: &ServerName,
        signed_at: Timestamp,
        digest: Digest,
        now: Timestamp,
    ) -> Result<NotedBefore, Refusal> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last_signed_at, last_digest)) = last.get(server) {
            let is_again = signed_at == *last_signed_at && digest == *last_digest;
            if signed_at <= *last_signed_at && !is_again {
                let text = "This server has signed a later registration or leave; sign anew";
                return Err(refusal(text, now));
            }
        } else if last.len() >= REMEMBERED_MAX {
            last.retain(|_, (signed_at, _)| signed_at.after(REMEMBERED_FOR) >= now);
            if last.len() >= REMEMBERED_MAX {
                return Err(too_many());
            }
        }
        Ok(NotedBefore(last.insert(server.clone(), (signed_at, digest))))
    }

    /// Forgets the last request of `server`, which has changed nothing: it takes no place from others.
    pub(crate) fn take_back(&self, server: &ServerName, NotedBefore(before): NotedBefore) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match before {
            Some(before) => last.insert(server.clone(), before),
            None => last.remove(server),
        };
    }
}

/// What was noted of a server before its last request, if anything.
#[derive(Debug)]
pub(crate) struct NotedBefore(Option<(Timestamp, Digest)>);

fn too_many() -> Refusal {
    let text = "Too many servers register at this relay at the moment; try again later";
    let error = MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, text);
    error.retry_after(SIGNED_AT_TOLERANCE).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn server(number: usize) -> ServerName {
        format!("s{number}.example").parse().unwrap()
    }

    #[test]
    fn a_minute_either_way_is_in_time() {
        for signed_at in [NOW, NOW.before(SECOND * 60), NOW.after(SECOND * 60)] {
            assert!(check(signed_at, NOW).is_ok());
        }
        for signed_at in [NOW.before(SECOND * 61), NOW.after(SECOND * 61), Timestamp::EPOCH] {
            let Refusal(error) = check(signed_at, NOW).unwrap_err();
            assert_eq!(error.details["now"], NOW.as_millis());
        }
    }

    #[test]
    fn a_change_that_was_signed_before_the_relay_started_is_refused_with_its_time() {
        let started = Started::at(NOW);
        assert!(check_change(NOW, &started, NOW.after(SECOND)).is_ok());
        let before = NOW.before(Duration::from_millis(1));
        let Refusal(error) = check_change(before, &started, NOW.after(SECOND)).unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::FORBIDDEN, ErrorCode::Forbidden));
        assert_eq!(error.details["now"], NOW.after(SECOND).as_millis());
    }

    #[test]
    fn a_clock_that_was_ahead_at_the_start_keeps_nobody_from_registering_when_it_is_set_back() {
        let started = Started::at(NOW.after(SECOND * 7200));
        // Refused once, with the time by which a node signs anew.
        assert!(check_change(NOW.before(SECOND), &started, NOW).is_err());
        assert!(check_change(NOW, &started, NOW.after(SECOND)).is_ok());
    }

    #[test]
    fn what_was_signed_before_the_last_is_refused_and_the_last_may_come_again() {
        let last = LastSigned::default();
        let note = |signed_at, digest: u8| last.note(&server(1), signed_at, [digest; 32], NOW);
        note(NOW, 1).unwrap();
        note(NOW, 1).unwrap();
        assert!(note(NOW, 2).is_err(), "signed at the same moment, and another");
        note(NOW.after(SECOND), 2).unwrap();
        assert!(note(NOW, 1).is_err(), "the first one again");
        last.note(&server(2), NOW, [1; 32], NOW).unwrap();
    }

    #[test]
    fn what_is_taken_back_takes_no_place_and_what_was_noted_before_holds_again() {
        let last = LastSigned::default();
        for number in 0..=REMEMBERED_MAX {
            let noted = last.note(&server(number), NOW, [0; 32], NOW).unwrap();
            last.take_back(&server(number), noted);
        }
        last.note(&server(1), NOW, [1; 32], NOW).unwrap();
        let noted = last.note(&server(1), NOW.after(SECOND), [2; 32], NOW).unwrap();
        last.take_back(&server(1), noted);
        last.note(&server(1), NOW, [1; 32], NOW).unwrap();
        assert!(last.note(&server(1), NOW.before(SECOND), [0; 32], NOW).is_err());
    }

    #[test]
    fn a_flood_is_put_off_and_forgotten_with_the_time_in_which_it_could_be_replayed() {
        let last = LastSigned::default();
        for number in 0..REMEMBERED_MAX {
            last.note(&server(number), NOW, [0; 32], NOW).unwrap();
        }
        let one_more = |now: Timestamp| last.note(&server(REMEMBERED_MAX), now, [0; 32], now);
        let Refusal(error) = one_more(NOW.after(REMEMBERED_FOR)).unwrap_err();
        assert_eq!(error.code, ErrorCode::LimitExceeded);
        last.note(&server(0), NOW.after(SECOND), [0; 32], NOW).unwrap();
        one_more(NOW.after(REMEMBERED_FOR + SECOND * 2)).unwrap();
    }
}
