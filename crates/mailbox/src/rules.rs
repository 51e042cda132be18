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
    /// Mailboxes from which on no other is made for the deposit. Those that are there for nothing but mail to be delivered onward do not
    /// count.
    pub mailboxes_max: u64,
    /// Of mail that is to be delivered onward; other mail does not count.
    pub onward: OnwardLimits,
}

/// How much may wait to be delivered onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnwardLimits {
    /// Of one origin, to all its recipients together.
    pub origin: MailboxLimits,
    /// Recipients of one origin at the same time, so that none fills the places of all with names that it makes up.
    pub destinations_max: u64,
    /// Mailboxes that are there for nothing but such mail, whoever left it. An empty one makes room for another.
    pub mailboxes_max: u64,
}

/// What has no room for a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Full {
    /// The mailbox, whoever sends; or there are as many mailboxes as may be, and this would be one more.
    Mailbox,
    /// The origin's share of the mailbox, or of what is delivered onward, to how many recipients or in all; others may still leave mail.
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
    pub(crate) onward: OnwardHeld,
    pub(crate) berth: Berth,
}

/// What an origin has to be delivered onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OnwardHeld {
    pub(crate) load: Load,
    /// Its other recipients, if the deposit's is none of them yet.
    pub(crate) other_destinations: Option<u64>,
}

/// Which mailbox a deposit goes into, as far as their number is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Berth {
    /// One that is there.
    #[default]
    There,
    /// One more beside so many.
    OneMore(u64),
    /// One more beside so many that are there for nothing but mail to be delivered onward.
    OneMoreOnward(u64),
    /// One that takes the place of an empty one of those.
    InsteadOfAnother,
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
    pub const fn of_mailboxes(mailbox: MailboxLimits) -> Self {
        Self {
            mailbox,
            origin: MailboxLimits::UNBOUNDED,
            relay: MailboxLimits::UNBOUNDED,
            mailboxes_max: u64::MAX,
            onward: OnwardLimits::UNBOUNDED,
        }
    }

    /// What has no room for one envelope of `more` bytes, if anything. The mailbox comes first, since its owner can mend
    /// that by collecting.
    pub(crate) fn full(self, held: Held, more: u64) -> Option<Full> {
        let bounds = [
            (self.mailbox.have_room(held.mailbox, more), Full::Mailbox),
            (self.origin.have_room(held.origin, more), Full::Share),
            (self.onward.have_room(held.onward, more), Full::Share),
            (self.have_berth(held.berth), Full::Mailbox),
            (self.relay.have_room(held.relay, more), Full::Relay),
        ];
        let without_room = bounds.into_iter().find(|(has_room, _)| !has_room);
        without_room.map(|(_, full)| full)
    }

    fn have_berth(self, berth: Berth) -> bool {
        match berth {
            Berth::There | Berth::InsteadOfAnother => true,
            Berth::OneMore(others) => others < self.mailboxes_max,
            Berth::OneMoreOnward(others) => others < self.onward.mailboxes_max,
        }
    }
}

impl OnwardLimits {
    /// No bound.
    pub const UNBOUNDED: Self = Self {
        origin: MailboxLimits::UNBOUNDED,
        destinations_max: u64::MAX,
        mailboxes_max: u64::MAX,
    };

    /// Whether there is room for one envelope of `more` bytes beside `held`.
    pub(crate) fn have_room(self, held: OnwardHeld, more: u64) -> bool {
        self.origin.have_room(held.load, more)
            && held.other_destinations.is_none_or(|others| others < self.destinations_max)
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
        let quotas = Quotas { origin: one, relay: one, ..Quotas::of_mailboxes(one) };
        let taken = Load { envelopes: 1, bytes: 1 };
        let none = Held::default();

        assert_eq!(quotas.full(none, 100), None);
        assert_eq!(quotas.full(none, 101), Some(Full::Mailbox));
        assert_eq!(quotas.full(Held { relay: taken, ..none }, 1), Some(Full::Relay));
        assert_eq!(quotas.full(Held { origin: taken, relay: taken, ..none }, 1), Some(Full::Share));
        let all = Held { mailbox: taken, origin: taken, relay: taken, ..none };
        assert_eq!(quotas.full(all, 1), Some(Full::Mailbox));
    }

    #[test]
    fn mail_to_be_delivered_is_bounded_by_its_amount_and_by_its_recipients() {
        let origin = MailboxLimits { envelopes_max: 2, bytes_max: 100 };
        let limits = OnwardLimits { origin, destinations_max: 2, ..OnwardLimits::UNBOUNDED };
        let held = |envelopes, other_destinations| OnwardHeld {
            load: Load { envelopes, bytes: 0 },
            other_destinations,
        };
        assert!(limits.have_room(held(1, Some(1)), 100));
        assert!(!limits.have_room(held(1, Some(1)), 101));
        assert!(!limits.have_room(held(2, Some(1)), 1));
        assert!(!limits.have_room(held(1, Some(2)), 1), "it would be the third");
        assert!(limits.have_room(held(1, None), 1), "it is one of them");
    }

    #[test]
    fn mailboxes_for_mail_to_be_delivered_are_counted_apart() {
        let unbounded = Quotas::of_mailboxes(MailboxLimits::UNBOUNDED);
        let onward = OnwardLimits { mailboxes_max: 3, ..OnwardLimits::UNBOUNDED };
        let quotas = Quotas { mailboxes_max: 2, onward, ..unbounded };
        let full = |berth| quotas.full(Held { berth, ..Held::default() }, 1);

        assert_eq!((full(Berth::OneMore(1)), full(Berth::OneMore(2))), (None, Some(Full::Mailbox)));
        assert_eq!(full(Berth::OneMoreOnward(2)), None);
        assert_eq!(full(Berth::OneMoreOnward(3)), Some(Full::Mailbox));
        assert_eq!((full(Berth::There), full(Berth::InsteadOfAnother)), (None, None));
    }
}
