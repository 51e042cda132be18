//! What a mailbox takes: age and fullness. Pure; the caller passes the time.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// How much one mailbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Envelopes at most.
    pub envelopes_max: u64,
    /// Bytes of content and members, as received, at most.
    pub bytes_max: u64,
}

/// How old or early a transaction may be when it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeAge {
    /// Older than this is refused: signatures never expire, so age bounds replays.
    pub time_to_live: Duration,
    /// Further ahead than this is refused: it would outlive its time.
    pub ahead_max: Duration,
}

/// A transaction's signed time is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeAgeError {
    /// Past its time to live.
    #[error("the transaction is older than this relay keeps mail")]
    TooOld,
    /// Too far ahead.
    #[error(
        "the transaction's origin_server_ts lies in the future; check the clocks of both servers"
    )]
    TooFarAhead,
}

impl MailboxLimits {
    /// Whether a mailbox that holds `count` envelopes of `bytes` takes one of `more` bytes.
    pub(crate) fn have_room(self, count: u64, bytes: u64, more: u64) -> bool {
        count < self.envelopes_max && bytes.saturating_add(more) <= self.bytes_max
    }
}

/// Checks a transaction's signed `origin_server_ts` (milliseconds, any JSON number, so a float) against the clock.
///
/// Both bounds are still taken. What is not a number is too old: nothing bounds its replays.
pub fn envelope_age(
    origin_server_ts: f64,
    bounds: EnvelopeAge,
    now: Timestamp,
) -> Result<(), EnvelopeAgeError> {
    let oldest = now.before(bounds.time_to_live);
    let latest = now.after(bounds.ahead_max);
    // Clocks stay below 2^53 ms, the year 287,396, where floats are exact.
    if origin_server_ts.is_nan() || origin_server_ts < oldest.as_millis() as f64 {
        return Err(EnvelopeAgeError::TooOld);
    }
    if origin_server_ts > latest.as_millis() as f64 {
        return Err(EnvelopeAgeError::TooFarAhead);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn age_of(origin_server_ts: f64) -> Result<(), EnvelopeAgeError> {
        let bounds = EnvelopeAge {
            time_to_live: Duration::from_millis(30 * DAY),
            ahead_max: Duration::from_secs(600),
        };
        envelope_age(origin_server_ts, bounds, Timestamp::from_millis(NOW))
    }

    #[test]
    fn mail_is_taken_from_its_time_to_live_ago_until_a_little_ahead() {
        let oldest = (NOW - 30 * DAY) as f64;
        let latest = (NOW + 600_000) as f64;

        assert_eq!(age_of(NOW as f64), Ok(()));
        assert_eq!(age_of(oldest), Ok(()));
        assert_eq!(age_of(latest), Ok(()));
        assert_eq!(age_of(oldest - 0.5), Err(EnvelopeAgeError::TooOld));
        assert_eq!(age_of(latest + 0.5), Err(EnvelopeAgeError::TooFarAhead));
    }

    #[test]
    fn odd_numbers_are_refused() {
        for old in [0.0, -0.0, -1.0, f64::MIN, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE] {
            assert_eq!(age_of(old), Err(EnvelopeAgeError::TooOld), "{old}");
        }
        for ahead in [f64::MAX, f64::INFINITY, 1e300, u64::MAX as f64] {
            assert_eq!(age_of(ahead), Err(EnvelopeAgeError::TooFarAhead), "{ahead}");
        }
    }

    #[test]
    fn a_clock_near_the_epoch_does_not_wrap() {
        let bounds =
            EnvelopeAge { time_to_live: Duration::MAX, ahead_max: Duration::from_secs(600) };

        assert_eq!(envelope_age(0.0, bounds, Timestamp::EPOCH), Ok(()));
        assert_eq!(envelope_age(-1.0, bounds, Timestamp::EPOCH), Err(EnvelopeAgeError::TooOld));
    }

    #[test]
    fn a_mailbox_takes_envelopes_up_to_both_bounds() {
        let limits = MailboxLimits { envelopes_max: 2, bytes_max: 10 };

        assert!(limits.have_room(1, 5, 5));
        assert!(!limits.have_room(1, 5, 6));
        assert!(!limits.have_room(2, 0, 0));
        assert!(!limits.have_room(0, 0, u64::MAX));
    }
}
