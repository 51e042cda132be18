//! What a mailbox takes: age and fullness. Pure; the caller passes the time.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// How much a mailbox, an origin's share of it, or a whole relay may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Envelopes at most.
    pub envelopes_max: u64,
    /// Bytes of content and members, as received, at most.
    pub bytes_max: u64,
}

/// All bounds that a deposit must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of one mailbox.
    pub mailbox: MailboxLimits,
    /// Of what one origin may fill of a mailbox, so that it can't use up what others need.
    pub origin: MailboxLimits,
    /// Of all mailboxes together.
    pub relay: MailboxLimits,
    /// Of what one origin may have delivered onward, to all its recipients together. Mail that is not to be delivered onward
    /// does not count.
    pub onward: MailboxLimits,
}

/// What has no room for a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Full {
    /// The mailbox, whoever sends.
    Mailbox,
    /// The origin's share of the mailbox, or of what is delivered onward; others may still leave mail.
    Share,
    /// The relay, whatever the mailbox.
    Relay,
}

/// What stands in a mailbox, in an origin's share of it, and in all mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) mailbox: Load,
    pub(crate) origin: Load,
    pub(crate) relay: Load,
    pub(crate) onward: Load,
}

/// Envelopes and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) envelopes: u64,
    pub(crate) bytes: u64,
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

impl Load {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.envelopes += 1;
        self.bytes += bytes;
    }

    pub(crate) fn subtract(&mut self, bytes: u64) {
        self.envelopes = self.envelopes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl MailboxLimits {
    /// No bound.
    pub const UNBOUNDED: Self = Self { envelopes_max: u64::MAX, bytes_max: u64::MAX };

    /// Whether there is room for one envelope of `more` bytes beside `held`.
    fn have_room(self, held: Load, more: u64) -> bool {
        held.envelopes < self.envelopes_max && held.bytes.saturating_add(more) <= self.bytes_max
    }
}

impl Quotas {
    /// Of mailboxes alone: any origin may fill one, and there may be any number.
    pub fn of_mailboxes(mailbox: MailboxLimits) -> Self {
        Self {
            mailbox,
            origin: MailboxLimits::UNBOUNDED,
            relay: MailboxLimits::UNBOUNDED,
            onward: MailboxLimits::UNBOUNDED,
        }
    }

    /// Whether `held.onward` leaves room for one envelope of `more` bytes.
    pub(crate) fn has_room_onward(self, held: Held, more: u64) -> bool {
        self.onward.have_room(held.onward, more)
    }

    /// What has no room for one envelope of `more` bytes, if anything. The mailbox comes first, since its owner can mend
    /// that by collecting.
    pub(crate) fn full(self, held: Held, more: u64) -> Option<Full> {
        let bounds = [
            (self.mailbox, held.mailbox, Full::Mailbox),
            (self.origin, held.origin, Full::Share),
            (self.onward, held.onward, Full::Share),
            (self.relay, held.relay, Full::Relay),
        ];
        let without_room =
            bounds.into_iter().find(|(limits, held, _)| !limits.have_room(*held, more));
        without_room.map(|(.., full)| full)
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
        let load = |envelopes, bytes| Load { envelopes, bytes };

        assert!(limits.have_room(load(1, 5), 5));
        assert!(!limits.have_room(load(1, 5), 6));
        assert!(!limits.have_room(load(2, 0), 0));
        assert!(!limits.have_room(load(0, 0), u64::MAX));
    }

    #[test]
    fn the_first_bound_without_room_is_told() {
        let one = MailboxLimits { envelopes_max: 1, bytes_max: 100 };
        let onward = MailboxLimits::UNBOUNDED;
        let quotas = Quotas { mailbox: one, origin: one, relay: one, onward };
        let taken = Load { envelopes: 1, bytes: 1 };
        let none = Held::default();

        assert_eq!(quotas.full(none, 100), None);
        assert_eq!(quotas.full(none, 101), Some(Full::Mailbox));
        assert_eq!(quotas.full(Held { relay: taken, ..none }, 1), Some(Full::Relay));
        assert_eq!(quotas.full(Held { origin: taken, relay: taken, ..none }, 1), Some(Full::Share));
        let bounded = Quotas { origin: MailboxLimits::UNBOUNDED, onward: one, ..quotas };
        assert_eq!(bounded.full(Held { onward: taken, ..none }, 1), Some(Full::Share));
        let all = Held { mailbox: taken, origin: taken, relay: taken, ..none };
        assert_eq!(quotas.full(all, 1), Some(Full::Mailbox));
    }
}
