//! Decides whether the inbox has room: what each origin has in it, and who must use it rather than go straight through.
//!
//! Pure bookkeeping; what is refused stays where it is, at the relay or at its sender.

use std::collections::BTreeMap;
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};

/// Bytes that the inbox holds of everybody's proven mail: a node on a small disk stays usable.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Envelopes that the inbox holds of everybody's proven mail.
const COUNT_MAX: u64 = 500_000;
/// Bytes of one origin, so that eight of them must conspire to fill the inbox.
const ORIGIN_BYTES_MAX: u64 = BYTES_MAX / 8;
/// Envelopes of one origin.
const ORIGIN_COUNT_MAX: u64 = COUNT_MAX / 8;
/// Bytes of mail whose origin is not proven. Anybody can make it up, so that it has a share of its own.
const UNPROVEN_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Envelopes whose origin is not proven.
const UNPROVEN_COUNT_MAX: u64 = 20_000;
/// Bytes of mail in one origin's name that is not proven.
const UNPROVEN_ORIGIN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Envelopes in one origin's name that are not proven.
const UNPROVEN_ORIGIN_COUNT_MAX: u64 = 1_000;

/// How long direct mail on its way to the homeserver holds up what arrives here meanwhile. Nobody has looked at its
/// signature, so that anybody may have sent it, in any name.
const PASSING_MAX: Duration = Duration::from_secs(5);

/// Which share of the inbox an envelope takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Of a proven origin.
    Proven,
    /// In the name of an origin.
    Unproven,
}

/// An amount of mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Envelopes.
    pub(crate) count: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// What the inbox holds.
#[derive(Debug, Default)]
pub(crate) struct Load {
    origins: BTreeMap<ServerName, OriginLoad>,
    proven: Weight,
    unproven: Weight,
}

#[derive(Debug, Default)]
struct OriginLoad {
    proven: Weight,
    unproven: Weight,
    undelivered: u64,
    passing: u64,
    /// When the newest of these began.
    passing_since: Option<Timestamp>,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Weight {
    /// One envelope of so many bytes.
    pub(crate) fn of(bytes: u64) -> Self {
        Self { count: 1, bytes }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Self) {
        self.count = self.count.saturating_sub(other.count);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }

    fn fits(self, more: Self, max: Self) -> bool {
        self.count + more.count <= max.count && self.bytes + more.bytes <= max.bytes
    }
}

impl Load {
    /// Takes room for mail of `origin`, if there is.
    pub(crate) fn admit(
        &mut self,
        origin: &ServerName,
        class: Class,
        weight: Weight,
    ) -> Result<(), Full> {
        self.check(origin, class, weight)?;
        self.restore(origin, class, weight);
        Ok(())
    }

    /// Whether there is such room.
    pub(crate) fn check(
        &self,
        origin: &ServerName,
        class: Class,
        weight: Weight,
    ) -> Result<(), Full> {
        let (total_max, origin_max) = maxima(class);
        let (total, of_origin) = match class {
            Class::Proven => (self.proven, self.origins.get(origin).map(|load| load.proven)),
            Class::Unproven => (self.unproven, self.origins.get(origin).map(|load| load.unproven)),
        };
        let of_origin = of_origin.unwrap_or_default();
        let fits = total.fits(weight, total_max) && of_origin.fits(weight, origin_max);
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Counts what the inbox holds already.
    pub(crate) fn restore(&mut self, origin: &ServerName, class: Class, weight: Weight) {
        self.total(class).add(weight);
        self.origin(origin, class).add(weight);
    }

    /// Gives room back.
    pub(crate) fn release(&mut self, origin: &ServerName, class: Class, weight: Weight) {
        self.total(class).take(weight);
        self.origin(origin, class).take(weight);
        self.tidy(origin);
    }

    /// So many envelopes of `origin` wait for delivery.
    pub(crate) fn waits(&mut self, origin: &ServerName, count: u64) {
        self.origins.entry(origin.clone()).or_default().undelivered += count;
    }

    /// One of them waits no longer.
    pub(crate) fn waits_no_longer(&mut self, origin: &ServerName) {
        if let Some(load) = self.origins.get_mut(origin) {
            load.undelivered = load.undelivered.saturating_sub(1);
        }
        self.tidy(origin);
    }

    /// Whether nothing takes any room.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        (self.proven, self.unproven) == (Weight::default(), Weight::default())
    }

    /// Origins with mail that waits for delivery.
    pub(crate) fn waiting(&self) -> Vec<ServerName> {
        let waiting = self.origins.iter().filter(|(_, load)| load.undelivered > 0);
        waiting.map(|(origin, _)| origin.clone()).collect()
    }

    /// Origins with mail that is not proven.
    pub(crate) fn unproven(&self) -> Vec<ServerName> {
        let unproven = self.origins.iter().filter(|(_, load)| load.unproven.count > 0);
        unproven.map(|(origin, _)| origin.clone()).collect()
    }

    /// Whether `origin` has mail that is not proven.
    pub(crate) fn has_unproven(&self, origin: &ServerName) -> bool {
        self.origins.get(origin).is_some_and(|load| load.unproven.count > 0)
    }

    /// Lets direct mail of `origin` go straight to the homeserver, unless older mail of it waits here.
    pub(crate) fn begin_passing(&mut self, origin: &ServerName, now: Timestamp) -> bool {
        let load = self.origins.entry(origin.clone()).or_default();
        let may_pass = load.undelivered == 0;
        if may_pass {
            load.passing += 1;
            load.passing_since = Some(now);
        }
        may_pass
    }

    /// The homeserver answered.
    pub(crate) fn end_passing(&mut self, origin: &ServerName) {
        if let Some(load) = self.origins.get_mut(origin) {
            load.passing = load.passing.saturating_sub(1);
        }
        self.tidy(origin);
    }

    /// How long direct mail of `origin` that is on its way is waited for: the homeserver refuses two transactions of one
    /// origin at once. None begins while something waits here.
    pub(crate) fn passing_wait(&self, origin: &ServerName, now: Timestamp) -> Duration {
        let passing = self.origins.get(origin).filter(|load| load.passing > 0);
        let since = passing.and_then(|load| load.passing_since);
        since.map_or(Duration::ZERO, |since| since.after(PASSING_MAX).since(now))
    }

    fn total(&mut self, class: Class) -> &mut Weight {
        match class {
            Class::Proven => &mut self.proven,
            Class::Unproven => &mut self.unproven,
        }
    }

    fn origin(&mut self, origin: &ServerName, class: Class) -> &mut Weight {
        let load = self.origins.entry(origin.clone()).or_default();
        match class {
            Class::Proven => &mut load.proven,
            Class::Unproven => &mut load.unproven,
        }
    }

    /// Forgets an origin with nothing here, or strangers' names would add up.
    fn tidy(&mut self, origin: &ServerName) {
        let idle = |load: &OriginLoad| {
            let OriginLoad { proven, unproven, undelivered, passing, .. } = load;
            // Events of a backlog count by their bytes alone.
            proven.bytes + unproven.bytes == 0
                && proven.count + unproven.count + undelivered + passing == 0
        };
        if self.origins.get(origin).is_some_and(idle) {
            self.origins.remove(origin);
        }
    }
}

fn maxima(class: Class) -> (Weight, Weight) {
    let weight = |count, bytes| Weight { count, bytes };
    match class {
        Class::Proven => (weight(COUNT_MAX, BYTES_MAX), weight(ORIGIN_COUNT_MAX, ORIGIN_BYTES_MAX)),
        Class::Unproven => (
            weight(UNPROVEN_COUNT_MAX, UNPROVEN_BYTES_MAX),
            weight(UNPROVEN_ORIGIN_COUNT_MAX, UNPROVEN_ORIGIN_BYTES_MAX),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str) -> ServerName {
        name.parse().unwrap()
    }

    #[test]
    fn a_full_origin_leaves_room_for_others() {
        let mut load = Load::default();
        let large = Weight::of(ORIGIN_BYTES_MAX);
        assert_eq!(load.admit(&origin("a"), Class::Proven, large), Ok(()));
        assert_eq!(load.admit(&origin("a"), Class::Proven, Weight::of(1)), Err(Full));
        assert_eq!(load.admit(&origin("b"), Class::Proven, Weight::of(1)), Ok(()));
        load.release(&origin("a"), Class::Proven, large);
        assert_eq!(load.admit(&origin("a"), Class::Proven, Weight::of(1)), Ok(()));
    }

    #[test]
    fn what_strangers_make_up_takes_no_room_from_proven_mail() {
        let mut load = Load::default();
        for _ in 0..UNPROVEN_ORIGIN_COUNT_MAX {
            load.admit(&origin("a"), Class::Unproven, Weight::of(1)).unwrap();
        }
        assert_eq!(load.admit(&origin("a"), Class::Unproven, Weight::of(1)), Err(Full));
        assert_eq!(load.admit(&origin("a"), Class::Proven, Weight::of(1)), Ok(()));
    }

    #[test]
    fn direct_mail_passes_only_when_nothing_older_waits() {
        let (mut load, now) = (Load::default(), Timestamp::EPOCH);
        assert!(load.begin_passing(&origin("a"), now));
        load.waits(&origin("a"), 1);
        assert_eq!(load.passing_wait(&origin("a"), now), PASSING_MAX);
        assert!(!load.begin_passing(&origin("a"), now));
        load.end_passing(&origin("a"));
        assert_eq!(load.passing_wait(&origin("a"), now), Duration::ZERO);
        load.waits_no_longer(&origin("a"));
        assert!(load.begin_passing(&origin("a"), now));
    }

    #[test]
    fn direct_mail_that_is_never_answered_holds_nothing_up_for_long() {
        let (mut load, now) = (Load::default(), Timestamp::EPOCH);
        assert!(load.begin_passing(&origin("a"), now));
        load.waits(&origin("a"), 1);
        let later = now.after(PASSING_MAX);
        assert!(!load.begin_passing(&origin("a"), later));
        assert_eq!(load.passing_wait(&origin("a"), later), Duration::ZERO);
    }

    #[test]
    fn events_that_outlast_their_envelope_stay_charged_to_their_origin() {
        let mut load = Load::default();
        let events = Weight { count: 0, bytes: ORIGIN_BYTES_MAX };
        load.admit(&origin("a"), Class::Proven, Weight::of(10)).unwrap();
        load.restore(&origin("a"), Class::Proven, events);
        load.release(&origin("a"), Class::Proven, Weight::of(10));
        assert_eq!(load.admit(&origin("a"), Class::Proven, Weight::of(10)), Err(Full));
        load.release(&origin("a"), Class::Proven, events);
        assert_eq!(load.admit(&origin("a"), Class::Proven, Weight::of(10)), Ok(()));
        load.release(&origin("a"), Class::Proven, Weight::of(10));
        assert!(load.is_empty() && load.origins.is_empty());
    }

    #[test]
    fn an_origin_with_nothing_here_is_forgotten() {
        let mut load = Load::default();
        load.begin_passing(&origin("a"), Timestamp::EPOCH);
        load.end_passing(&origin("a"));
        load.waits(&origin("b"), 1);
        assert_eq!(load.waiting(), [origin("b")]);
        load.waits_no_longer(&origin("b"));
        assert!(load.origins.is_empty());
    }
}
