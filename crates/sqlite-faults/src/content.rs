//! What of a file is durable, and what was changed since. Pure.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use crate::Loss;

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    durable: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

impl Content {
    /// A file that was on the disk before.
    pub(crate) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes, since: Vec::new() }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.since.push(Change::Write { offset: index(offset), bytes: bytes.to_vec() });
    }

    pub(crate) fn truncate(&mut self, length: u64) {
        self.since.push(Change::Truncate { length: index(length) });
    }

    pub(crate) fn sync(&mut self) {
        for change in self.since.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: the system believes what was changed to be on the disk, where only some of it is. A later
    /// sync does not write it again.
    pub(crate) fn fail_to_sync(&mut self, rng: &mut StdRng) {
        self.durable = self.after(Loss::draw(rng), rng);
        self.since.clear();
    }

    /// What is on the disk after a loss of power.
    pub(crate) fn after(&self, loss: Loss, rng: &mut StdRng) -> Vec<u8> {
        let newest = self.since.len();
        let survives = |number: usize, rng: &mut StdRng, moment: usize| match loss {
            Loss::WholeWrites { survival } => rng.random_bool(survival),
            _ => number < moment,
        };
        if let Loss::Torn { piece_bytes, .. } = loss {
            return self.torn(loss, index(piece_bytes), rng);
        }
        let moment = loss.moment(newest, rng);
        let mut bytes = self.durable.clone();
        for (number, change) in self.since.iter().enumerate() {
            if survives(number, rng, moment) {
                change.apply(&mut bytes);
            }
        }
        bytes
    }

    fn torn(&self, loss: Loss, piece_bytes: usize, rng: &mut StdRng) -> Vec<u8> {
        let mut cached = self.durable.clone();
        let mut lengths = vec![cached.len()];
        let mut pieces: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for change in &self.since {
            change.apply(&mut cached);
            lengths.push(cached.len());
            for number in change.pieces(piece_bytes) {
                let start = number * piece_bytes;
                let end = cached.len().min(start + piece_bytes);
                pieces.entry(number).or_default().push(cached[start..end].to_vec());
            }
        }
        let length = lengths[loss.moment(lengths.len() - 1, rng)];
        let mut bytes = self.durable.clone();
        extend(&mut bytes, lengths.into_iter().max().unwrap_or(0), loss, rng);
        for (number, forms) in pieces {
            // Form 0 is what is there already.
            if let Some(newest) = loss.moment(forms.len(), rng).checked_sub(1) {
                let start = number * piece_bytes;
                bytes[start..start + forms[newest].len()].copy_from_slice(&forms[newest]);
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// Lengthens `bytes` with what lies on the disk where nothing was written.
fn extend(bytes: &mut Vec<u8>, length: usize, loss: Loss, rng: &mut StdRng) {
    let written = bytes.len();
    bytes.resize(length.max(written), 0);
    if matches!(loss, Loss::Torn { garbage: true, .. }) {
        rng.fill_bytes(&mut bytes[written..]);
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Self::Truncate { length } => bytes.resize(*length, 0),
        }
    }

    fn pieces(&self, piece_bytes: usize) -> std::ops::Range<usize> {
        match self {
            Self::Write { offset, bytes } => {
                offset / piece_bytes..(offset + bytes.len()).div_ceil(piece_bytes)
            }
            Self::Truncate { .. } => 0..0,
        }
    }
}

/// Offsets in files that fit into memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

    use super::*;
    use crate::loss::rng;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Truncate(u64),
        Sync,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = prop::collection::vec(1..=255_u8, 1..3000);
        let step = prop_oneof![
            6 => (0..9000_u64, bytes).prop_map(|(offset, bytes)| Step::Write(offset, bytes)),
            1 => (0..9000_u64).prop_map(Step::Truncate),
            2 => proptest::strategy::Just(Step::Sync),
        ];
        prop::collection::vec(step, 0..20)
    }

    fn played(steps: &[Step]) -> Content {
        let mut content = Content::default();
        for step in steps {
            match step {
                Step::Write(offset, bytes) => content.write(*offset, bytes),
                Step::Truncate(length) => content.truncate(*length),
                Step::Sync => content.sync(),
            }
        }
        content
    }

    proptest! {
        #[test]
        fn what_was_synced_is_never_lost(steps in steps(), seed in any::<u64>()) {
            let mut content = played(&steps);
            content.sync();
            let mut rng = rng(seed);
            let loss = Loss::draw(&mut rng);

            assert_eq!(content.after(loss, &mut rng), content.durable);
        }

        #[test]
        fn bytes_that_no_change_touched_stay_as_they_were_synced(
            steps in steps(), unsynced in prop::collection::vec((0..9000_u64, prop::collection::vec(1..=255_u8, 1..3000)), 0..5), seed in any::<u64>(),
        ) {
            let mut content = played(&steps);
            content.sync();
            let synced = content.durable.clone();
            let mut touched = vec![false; 20_000];
            for (offset, bytes) in &unsynced {
                content.write(*offset, bytes);
                touched[index(*offset)..index(*offset) + bytes.len()].fill(true);
            }
            let mut rng = rng(seed);
            let loss = Loss::draw(&mut rng);

            let after = content.after(loss, &mut rng);

            assert!(after.len() >= synced.len());
            for (at, byte) in synced.iter().enumerate() {
                assert!(touched[at] || after[at] == *byte, "byte {at} changed");
            }
        }

        #[test]
        fn what_a_kill_leaves_is_what_was_written(steps in steps(), seed in any::<u64>()) {
            let content = played(&steps);
            let mut synced = content.clone();
            synced.sync();

            assert_eq!(content.after(Loss::Nothing, &mut rng(seed)), synced.durable);
        }
    }

    /// What the seeds leave of two sectors that were written twice and never synced.
    fn remains() -> Vec<(u8, u8)> {
        let mut content = Content::durable(vec![0; 1024]);
        content.write(0, &[1; 1024]);
        content.write(0, &[2; 1024]);
        let after = |seed| {
            let mut rng = rng(seed);
            let loss = Loss::draw(&mut rng);
            content.after(loss, &mut rng)
        };
        (0..2000).map(after).map(|bytes| (bytes[0], bytes[512])).collect()
    }

    #[test]
    fn what_was_not_synced_is_sometimes_lost_torn_and_out_of_order() {
        let remains = remains();

        for first in 0..=2 {
            for second in 0..=2 {
                assert!(remains.contains(&(first, second)), "never {first} beside {second}");
            }
        }
    }

    #[test]
    fn a_failed_sync_may_lose_what_a_later_sync_says_is_there() {
        let lost = |seed| {
            let mut content = Content::default();
            content.write(0, &[1; 512]);
            content.fail_to_sync(&mut rng(seed));
            content.sync();
            content.durable != [1; 512]
        };

        assert!((0..100).any(lost));
        assert!(!(0..100).all(lost));
    }
}
