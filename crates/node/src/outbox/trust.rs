//! Decides when a relay's 200 no longer counts as "sent", because it did not keep what it took.
//!
//! Pure. It counts incidents, not transactions: a relay that loses its disk loses all that it held at one time, and goes on.
//! One that keeps nothing loses what was left there after that, and again.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// Incidents after which its word does not count: one may be a lost disk, two a bad day.
const INCIDENTS_MAX: usize = 3;

/// Within which time.
const INCIDENTS_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// What follows from a lost transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It was left before the last incident, and belongs to that.
    SameIncident,
    /// Another incident.
    Incident,
    /// One too many: the relay's word does not count until mail that it took after this has arrived through it.
    Distrusted,
}

/// Judges that a relay lost what it took at `left_at`, after these `earlier` incidents.
pub(crate) fn judge(earlier: &[Timestamp], left_at: Timestamp, now: Timestamp) -> Judgement {
    if earlier.iter().any(|incident| left_at <= *incident) {
        return Judgement::SameIncident;
    }
    let recent = earlier.iter().filter(|incident| now.since(**incident) < INCIDENTS_WITHIN);
    if recent.count() + 1 >= INCIDENTS_MAX { Judgement::Distrusted } else { Judgement::Incident }
}

/// Incidents from before this time are forgotten.
pub(crate) fn forgotten_before(now: Timestamp) -> Timestamp {
    now.before(INCIDENTS_WITHIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + minutes * 60_000)
    }

    /// What comes of transactions, each by when it was left and when it was found lost.
    fn judged(lost: &[(u64, u64)]) -> Vec<Judgement> {
        let mut incidents = Vec::new();
        let judged = lost.iter().map(|(left, found)| {
            let judgement = judge(&incidents, at(*left), at(*found));
            if judgement != Judgement::SameIncident {
                incidents.push(at(*found));
            }
            judgement
        });
        judged.collect()
    }

    #[test]
    fn a_lost_disk_is_one_incident_however_much_lay_there() {
        let lost: Vec<_> = (0..100).map(|left| (left, 200)).collect();
        let judged = judged(&lost);
        assert_eq!(judged[0], Judgement::Incident);
        assert!(judged[1..].iter().all(|each| *each == Judgement::SameIncident));
    }

    #[test]
    fn a_relay_that_keeps_nothing_is_found_out_with_the_third_incident_of_a_day() {
        let lost = [(0, 10), (11, 21), (22, 32)];
        assert_eq!(judged(&lost).last(), Some(&Judgement::Distrusted));
        let day = 24 * 60;
        let slow = [(0, 10), (11, day), (day + 20, day + 30)];
        assert_eq!(judged(&slow).last(), Some(&Judgement::Incident));
    }

    proptest! {
        #[test]
        fn fewer_than_three_times_of_loss_never_cost_a_relay_its_word(
            lost in prop::collection::vec((0..1000u64, prop::sample::select(vec![1000u64, 1500])), 0..50),
        ) {
            let mut lost = lost;
            lost.sort_by_key(|(_, found)| *found);
            prop_assert!(!judged(&lost).contains(&Judgement::Distrusted));
        }
    }
}
