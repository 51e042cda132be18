//! Decides when a destination is assumed offline, and when it may be tried meanwhile.
//!
//! Pure: the caller passes the time.

use std::time::Duration;

use crate::config::DeliverySection;
use restante_federation_proto::Timestamp;

/// Least time between two probes that inbound requests trigger: a server that calls but can't be called, behind NAT,
/// must not make us dial without pause.
const SIGN_OF_LIFE_GAP: Duration = Duration::from_secs(5);

/// When to assume, and when to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfflinePolicy {
    /// Consecutive failed attempts after which a destination is assumed offline.
    pub(crate) attempts_until_offline: u32,
    /// At most one probe in this time.
    pub(crate) probe_interval: Duration,
    /// How long a probe may take to connect.
    pub(crate) probe_connect: Duration,
}

impl From<&DeliverySection> for OfflinePolicy {
    fn from(section: &DeliverySection) -> Self {
        Self {
            attempts_until_offline: section.attempts_until_offline,
            probe_interval: section.probe_interval.0,
            probe_connect: section.probe_connect.0,
        }
    }
}

/// What is known of a destination; the default is that nothing failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Failed attempts since the last answer.
    pub(crate) failures: u32,
    /// Since when it is assumed offline.
    pub(crate) assumed_offline_since: Option<Timestamp>,
    /// When the next probe is due.
    pub(crate) next_probe_at: Option<Timestamp>,
}

/// Whether a destination may be called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is not assumed offline.
    Attempt,
    /// It is assumed offline, and this call is the probe.
    Probe,
    /// It is assumed offline, and no probe is due.
    Offline,
}

impl Standing {
    /// Whether a call may go out at `now`; a probe is taken by whoever asks first.
    pub(crate) fn admit(&mut self, policy: &OfflinePolicy, now: Timestamp) -> Admission {
        if self.assumed_offline_since.is_none() {
            return Admission::Attempt;
        }
        if !self.probe_due(policy, now) {
            return Admission::Offline;
        }
        self.next_probe_at = Some(now.after(policy.probe_interval));
        Admission::Probe
    }

    /// An attempt failed at `now`.
    pub(crate) fn failed(&mut self, policy: &OfflinePolicy, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if self.failures < policy.attempts_until_offline {
            return;
        }
        if self.assumed_offline_since.is_none() {
            self.assumed_offline_since = Some(now);
            self.next_probe_at = Some(now.after(policy.probe_interval));
        }
    }

    /// The destination called us at `now`. Returns in how long to probe it, if it is to be probed and nobody is about to.
    pub(crate) fn sign_of_life(
        &mut self,
        policy: &OfflinePolicy,
        now: Timestamp,
    ) -> Option<Duration> {
        self.assumed_offline_since?;
        let interval = policy.probe_interval;
        // The probe before, which may still be to come, began a whole interval before the next one is due.
        let before = self.next_probe_at.filter(|_| !self.probe_due(policy, now));
        let before = before.map(|next| next.before(interval));
        if before.is_some_and(|before| before > now) {
            return None;
        }
        let at = before.map_or(now, |before| before.after(gap(policy)).max(now));
        self.next_probe_at = Some(at.after(interval));
        Some(at.since(now))
    }

    fn probe_due(&self, policy: &OfflinePolicy, now: Timestamp) -> bool {
        // A time further ahead than this was set by a clock that has since been put back.
        let latest = now.after(policy.probe_interval + gap(policy));
        self.next_probe_at.is_none_or(|at| at <= now || at > latest)
    }
}

/// The least time between two probes that calls of the destination trigger.
fn gap(policy: &OfflinePolicy) -> Duration {
    SIGN_OF_LIFE_GAP.min(policy.probe_interval)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const POLICY: OfflinePolicy = OfflinePolicy {
        attempts_until_offline: 2,
        probe_interval: Duration::from_secs(30),
        probe_connect: Duration::from_secs(3),
    };

    fn offline() -> Standing {
        let mut standing = Standing::default();
        standing.failed(&POLICY, NOW);
        assert_eq!(standing.admit(&POLICY, NOW), Admission::Attempt);
        standing.failed(&POLICY, NOW);
        standing
    }

    fn later(seconds: u64) -> Timestamp {
        NOW.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_destination_is_assumed_offline_after_the_second_failure() {
        assert_eq!(offline().assumed_offline_since, Some(NOW));
        assert_eq!(offline().admit(&POLICY, NOW), Admission::Offline);
    }

    #[test]
    fn one_probe_is_let_through_in_each_interval() {
        let mut standing = offline();
        assert_eq!(standing.admit(&POLICY, later(29)), Admission::Offline);
        assert_eq!(standing.admit(&POLICY, later(30)), Admission::Probe);
        assert_eq!(standing.admit(&POLICY, later(30)), Admission::Offline);
        standing.failed(&POLICY, later(33));
        assert_eq!(standing.admit(&POLICY, later(59)), Admission::Offline);
        assert_eq!(standing.admit(&POLICY, later(60)), Admission::Probe);
        assert_eq!(standing.assumed_offline_since, Some(NOW));
    }

    #[test]
    fn a_sign_of_life_asks_for_a_probe_but_not_without_pause() {
        let (mut standing, at_once) = (offline(), Some(Duration::ZERO));
        assert_eq!(Standing::default().sign_of_life(&POLICY, NOW), None);
        assert_eq!(standing.sign_of_life(&POLICY, later(5)), at_once);
        assert_eq!(standing.admit(&POLICY, later(34)), Admission::Offline);
        assert_eq!(standing.sign_of_life(&POLICY, later(34)), at_once);
    }

    #[test]
    fn who_calls_right_after_a_probe_is_probed_once_when_the_pause_ends() {
        let mut standing = offline();
        assert_eq!(standing.sign_of_life(&POLICY, later(4)), Some(Duration::from_secs(1)));
        assert_eq!(standing.sign_of_life(&POLICY, later(4)), None);
        assert_eq!(standing.admit(&POLICY, later(34)), Admission::Offline);
        assert_eq!(standing.sign_of_life(&POLICY, later(6)), Some(Duration::from_secs(4)));
    }

    #[test]
    fn a_clock_put_back_does_not_postpone_probes() {
        let mut standing = offline();
        let before = NOW.before(Duration::from_secs(86_400));
        assert_eq!(standing.admit(&POLICY, before), Admission::Probe);
        assert_eq!(standing.admit(&POLICY, before), Admission::Offline);
    }

    proptest! {
        #[test]
        fn probes_keep_their_distance_whatever_happens(
            steps in prop::collection::vec((0..20_000u64, any::<bool>()), 1..200),
        ) {
            let mut standing = offline();
            let mut now = NOW;
            let mut last: Option<Timestamp> = None;
            for (pause, fails) in steps {
                now = now.after(Duration::from_millis(pause));
                if fails {
                    standing.failed(&POLICY, now);
                }
                if standing.admit(&POLICY, now) == Admission::Probe {
                    prop_assert!(last.is_none_or(|last| now.since(last) >= POLICY.probe_interval));
                    last = Some(now);
                }
            }
        }
    }
}
