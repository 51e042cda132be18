//! Runs one case for each of many seeds: a few among the other tests, as many as wanted by a command.

use std::fmt;
use std::ops::AddAssign;

/// What was played, for the line at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Losses of power.
    pub losses: u64,
    /// Operations that were made to fail, and bits that were changed.
    pub faults: u64,
    /// Calls of the program under test that were answered.
    pub answers: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.losses += other.losses;
        self.faults += other.faults;
        self.answers += other.answers;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { losses, faults, answers } = self;
        write!(f, "{losses} losses of power, {faults} faults, {answers} answers")
    }
}

/// The seeds of one run. `RESTANTE_SEED` names the first, `RESTANTE_COUNT` how many.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    command: &'static str,
    first: u64,
    count: u64,
    is_in_full: bool,
}

impl Campaign {
    /// As many seeds as the environment says, or `count`; `command` of `cargo xtask` repeats them.
    pub fn of(command: &'static str, count: u64) -> Self {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let wanted = number("RESTANTE_COUNT");
        Self {
            command,
            first: number("RESTANTE_SEED").unwrap_or(0),
            count: wanted.unwrap_or(count),
            is_in_full: wanted.is_some(),
        }
    }

    /// Whether it is run by its command, and not among the other tests.
    pub fn is_in_full(self) -> bool {
        self.is_in_full
    }

    /// Runs `case` for each seed. An `Err` is the story of a broken promise.
    ///
    /// # Panics
    ///
    /// When a promise was broken: as a test does that failed, with how to repeat it.
    pub fn run(self, what: &str, mut case: impl FnMut(u64) -> Result<Tally, String>) {
        let mut played = Tally::default();
        for seed in self.first..self.first.saturating_add(self.count) {
            match case(seed) {
                Ok(tally) => played += tally,
                Err(story) => self.give_up(what, seed, &story),
            }
        }
        println!("{what}: {} seeds from {}, {played}", self.count, self.first);
    }

    #[expect(clippy::panic, reason = "a test fails by panicking")]
    fn give_up(self, what: &str, seed: u64, story: &str) {
        let command = self.command;
        panic!(
            "{what}: seed {seed} breaks a promise\n{story}\nrepeat it with: cargo xtask {command} --seed {seed} --count 1"
        );
    }
}
