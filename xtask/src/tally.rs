//! Counts what test programs report.

use std::fmt;
use std::ops::AddAssign;

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One failure: of a step that could not run any test.
    pub(crate) const ONE_FAILED: Self = Self { passed: 0, failed: 1 };

    /// Adds what a line of a test program's output reports, if it is the one that sums up.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
        let count = |what| {
            let words: Vec<_> = result.split([' ', ';']).collect();
            let at = words.iter().position(|word| *word == what)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        let (passed, failed) = (count("passed"), count("failed"));
        *self += Self { passed: passed.unwrap_or(0), failed: failed.unwrap_or(0) };
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_several_programs_add_up() {
        let mut tally = Tally::default();
        tally.read("running 7 tests");
        tally.read("test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s");
        tally
            .read("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(tally, Tally { passed: 9, failed: 3 });
        assert_eq!(tally.to_string(), "9 passed, 3 failed");
    }

    #[test]
    fn other_lines_count_nothing() {
        let mut tally = Tally::default();
        for line in ["", "test result: ", "5 passed; 2 failed", "test result: passed"] {
            tally.read(line);
        }
        assert_eq!(tally, Tally::default());
    }
}
