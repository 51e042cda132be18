//! The order in which the targets of SRV records are tried (RFC 2782).

use rand::{Rng, RngExt};

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SrvRecord {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// The target without its final dot; empty for `.`, which says that there is no such service.
    pub(crate) target: String,
}

/// Orders `records`: lowest priority first, and by weighted lot among equals.
pub(crate) fn in_order_of_trial(mut records: Vec<SrvRecord>, rng: &mut impl Rng) -> Vec<SrvRecord> {
    // Zero weights first, as the RFC has it: they win only the lot of exactly zero.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let equals = records.iter().take_while(|record| record.priority == priority).count();
        let weights: Vec<u32> =
            records[..equals].iter().map(|record| record.weight.into()).collect();
        ordered.push(records.remove(drawn(&weights, rng)));
    }
    ordered
}

fn drawn(weights: &[u32], rng: &mut impl Rng) -> usize {
    let lot = rng.random_range(0..=weights.iter().sum::<u32>());
    let mut sum = 0;
    weights
        .iter()
        .position(|weight| {
            sum += weight;
            sum >= lot
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight, port: 8448, target: target.into() }
    }

    #[test]
    fn the_lowest_priority_is_tried_first_whatever_its_weight() {
        let records = vec![record(20, 100, "relay"), record(10, 0, "homeserver")];
        for seed in 0..50 {
            let ordered = in_order_of_trial(records.clone(), &mut StdRng::seed_from_u64(seed));
            assert_eq!(ordered[0].target, "homeserver", "seed {seed}");
            assert_eq!(ordered[1].target, "relay", "seed {seed}");
        }
    }

    #[test]
    fn among_equals_the_heavier_comes_first_more_often() {
        let records = vec![record(10, 90, "heavy"), record(10, 10, "light")];
        let mut rng = StdRng::seed_from_u64(1);
        let heavy_first = (0..1000)
            .filter(|_| in_order_of_trial(records.clone(), &mut rng)[0].target == "heavy")
            .count();
        assert!((800..980).contains(&heavy_first), "{heavy_first}");
    }

    proptest! {
        /// However many records there are, with whatever weights: each is tried once, those of a lower priority first.
        #[test]
        fn every_record_has_its_turn(
            records in prop::collection::vec((0_u16..3, prop_oneof![Just(0), any::<u16>()]), 0..40),
            seed in any::<u64>(),
        ) {
            let named = |(number, (priority, weight)): (usize, &(u16, u16))| {
                record(*priority, *weight, &number.to_string())
            };
            let records: Vec<_> = records.iter().enumerate().map(named).collect();
            let ordered = in_order_of_trial(records.clone(), &mut StdRng::seed_from_u64(seed));
            prop_assert!(ordered.is_sorted_by_key(|record| record.priority));
            prop_assert_eq!(ordered.len(), records.len());
            prop_assert!(records.iter().all(|record| ordered.contains(record)));
        }
    }
}
