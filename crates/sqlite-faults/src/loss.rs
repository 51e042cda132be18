//! How a power loss treats what was not synced.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Bytes of the pieces that a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// Bytes of the pieces that the system's cache writes.
const PAGE_BYTES: u64 = 4096;

/// What becomes of unsynced changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None is on the disk.
    Everything,
    /// All are on the disk: the process was killed, and the system lived.
    Nothing,
    /// Those until some moment are on the disk.
    AfterSomeMoment,
    /// Each is on the disk whole or not at all, in any order.
    WholeWrites {
        /// How likely each is there.
        survival: f64,
    },
    /// Each piece of the file is on the disk as it was at some time since it was last synced.
    Torn {
        /// Bytes of a piece.
        piece_bytes: u64,
        /// How likely a piece is there in its newest form.
        survival: f64,
        /// Whether pieces that were never written hold what lay there before, and not zeros.
        garbage: bool,
    },
}

impl Loss {
    /// Any of them.
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let survival = [0.1, 0.5, 0.9, 0.99][rng.random_range(0..4)];
        match rng.random_range(0..10) {
            0 => Self::Everything,
            1 => Self::Nothing,
            2 => Self::AfterSomeMoment,
            3 | 4 => Self::WholeWrites { survival },
            kind => Self::Torn {
                piece_bytes: if kind < 8 { SECTOR_BYTES } else { PAGE_BYTES },
                survival,
                garbage: rng.random_bool(0.2),
            },
        }
    }

    /// Which of the states 0 to `newest` of a name or a length is found.
    pub(crate) fn moment(self, newest: usize, rng: &mut StdRng) -> usize {
        match self {
            Self::Everything => 0,
            Self::Nothing => newest,
            Self::AfterSomeMoment => rng.random_range(0..=newest),
            Self::WholeWrites { survival } | Self::Torn { survival, .. } => {
                if rng.random_bool(survival) { newest } else { rng.random_range(0..=newest) }
            }
        }
    }
}

/// The same seed loses the same.
pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
