//! What happened, line by line, with the virtual time of each.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lines that are kept; a run that goes on for longer is told without its middle.
const LINES_MAX: usize = 20_000;

/// The story of one run.
pub(crate) struct Story {
    begun: Instant,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    left_out: usize,
    digest: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), told: Mutex::default() }
    }

    /// Adds a line.
    pub(crate) fn tell(&self, line: std::fmt::Arguments<'_>) {
        let at = self.begun.elapsed();
        let mut text = String::with_capacity(96);
        // Writing to a string does not fail.
        let _ = write!(text, "{:>6}.{:03} {line}", at.as_secs(), at.subsec_millis());
        let mut told = self.told();
        told.digest = text.bytes().fold(told.digest ^ FNV_OFFSET, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
        });
        if told.lines.len() < LINES_MAX {
            told.lines.push(text);
        } else {
            told.left_out += 1;
        }
    }

    /// A number that two runs share only if they took the same course.
    pub(crate) fn digest(&self) -> u64 {
        self.told().digest
    }

    /// All lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let told = self.told();
        let mut lines = told.lines.clone();
        if told.left_out > 0 {
            lines.push(format!("({} more lines)", told.left_out));
        }
        lines
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
