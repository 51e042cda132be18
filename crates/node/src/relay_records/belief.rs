//! Decides which of two relay records of one server counts.
//!
//! Pure: the caller passes the time, and has checked the signature of what is to be believed.

use restante_federation_proto::Timestamp;
use restante_relay_api::VERSION_AHEAD_MAX;

/// What becomes of what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belief {
    /// It stays.
    Keep,
    /// The other takes its place.
    Replace,
}

/// Whether a record of version `offered` takes the place of one of version `known`: the newest counts, whoever gave it. One
/// from the future counts for nothing, and was taken in while this clock was wrong if it is the known one.
pub(super) fn belief(known: Option<Timestamp>, offered: Timestamp, now: Timestamp) -> Belief {
    let latest = now.after(VERSION_AHEAD_MAX);
    let known = known.filter(|known| *known <= latest);
    if offered <= latest && known.is_none_or(|known| known < offered) {
        Belief::Replace
    } else {
        Belief::Keep
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn hours(hours: u64) -> Timestamp {
        NOW.after(Duration::from_secs(hours * 3600))
    }

    #[test]
    fn the_newer_one_counts_and_one_as_new_stays() {
        assert_eq!(belief(None, NOW, NOW), Belief::Replace);
        assert_eq!(belief(Some(NOW), hours(1), NOW), Belief::Replace);
        assert_eq!(belief(Some(NOW), NOW, NOW), Belief::Keep);
        assert_eq!(belief(Some(hours(1)), NOW, NOW), Belief::Keep);
    }

    #[test]
    fn one_from_more_than_a_day_ahead_neither_comes_in_nor_keeps_others_out() {
        assert_eq!(belief(None, hours(24), NOW), Belief::Replace);
        assert_eq!(belief(None, hours(25), NOW), Belief::Keep);
        assert_eq!(belief(Some(hours(25)), NOW, NOW), Belief::Replace);
    }

    proptest! {
        #[test]
        fn in_whatever_order_records_come_the_newest_that_counts_is_believed(
            versions in prop::collection::vec(0..100u64, 1..20),
        ) {
            let versions: Vec<_> = versions.into_iter().map(hours).collect();
            let mut known = None;
            for version in &versions {
                if belief(known, *version, NOW) == Belief::Replace {
                    known = Some(*version);
                }
            }
            let newest = versions.into_iter().filter(|version| *version <= hours(24)).max();
            prop_assert_eq!(known, newest);
        }
    }
}
