//! Chance that a seed decides: SplitMix64, so that a seed means the same whatever version a library has.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use restante_federation_proto::Dice;

/// A source of numbers; whoever shares it draws from the same sequence.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

/// The step of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Another source, whose numbers do not depend on how often this one is drawn from later.
    pub(crate) fn branch(&self) -> Self {
        Self::new(self.number())
    }

    /// A number below `end`, which is not nought.
    pub(crate) fn below(&self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    pub(crate) fn within(&self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start).max(1)
    }

    pub(crate) fn duration(&self, range: Range<Duration>) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(range.start)..micros(range.end)))
    }

    /// Whether something happens that happens so many times in a thousand.
    pub(crate) fn happens(&self, permille: u64) -> bool {
        self.number() % 1000 < permille
    }

    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

impl Dice for Chance {
    fn number(&self) -> u64 {
        let mut mixed = self.0.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        let chance = Chance::new(1_234_567);
        assert_eq!(chance.number(), 6_457_827_717_110_365_317);
        assert_eq!(chance.number(), 3_203_168_211_198_807_973);
    }
}
