//! Developers' commands: `cargo xtask test`, `bench`, `fuzz`, `mutants`.

mod bench;
mod cargo;
mod crash;
mod disk;
mod fuzz;
mod jobs;
mod mutants;
mod powerloss;
mod python;
mod scenarios;
mod seeds;
mod simulate;
mod stream;
mod tally;
mod test;

use std::process::ExitCode;

use bench::Bench;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developers' commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every test there is: units, integration, and the scenarios with real homeservers.
    Test {
        /// Runs only tests whose name contains this.
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Measures something with the settings of a release.
    Bench {
        /// What to measure.
        bench: Bench,
        /// Options of the measurement, as in `bench load --only wake`; `bench load -- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Searches for inputs that break what the decoders promise.
    Fuzz {
        /// How long each target is searched, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Adds what was found to the corpus that the tests replay.
        #[arg(long)]
        keep: bool,
        /// Only this target.
        target: Option<String>,
    },
    /// Changes the rules on purpose, one change at a time, and sees whether a test notices.
    Mutants {
        /// Only the rules of this package.
        #[arg(long)]
        package: Option<String>,
    },
    /// Kills relays and nodes in the middle of their work, and looks whether what they answered holds.
    Crash(crash::Kills),
    /// Loses power under mailboxes and nodes' databases, and looks what is left.
    Powerloss(seeds::Seeds),
    /// Lets the disk under mailboxes and nodes' databases fill up, fail and flip bits, and looks what is left.
    Disk(seeds::Seeds),
    /// Plays relays, nodes and homeservers in virtual time, with all that can go wrong between them.
    Simulate(seeds::Seeds),
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Test { filter } => Ok(test::run(filter.as_deref())),
        Command::Bench { bench, options } => bench::run(bench, &options),
        Command::Fuzz { seconds, keep, target } => {
            fuzz::run(&fuzz::Search { seconds, keep, target: target.as_deref() })
        }
        Command::Mutants { package } => mutants::run(package.as_deref()),
        Command::Crash(kills) => crash::run(kills),
        Command::Powerloss(seeds) => powerloss::run(seeds),
        Command::Disk(seeds) => disk::run(seeds),
        Command::Simulate(seeds) => simulate::run(seeds),
    };
    ended.unwrap_or_else(|trouble| {
        eprintln!("{trouble:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_measurement_is_the_measurements_own() {
        let options = |line: &str| match Arguments::try_parse_from(line.split(' ')) {
            Ok(Arguments { command: Command::Bench { options, .. } }) => options.join(" "),
            _ => "no measurement".to_owned(),
        };
        let compared = "--compare http://127.0.0.1:8008 --seconds 2";
        assert_eq!(options(&format!("xtask bench load {compared}")), compared);
        assert_eq!(options("xtask bench load -- --help"), "--help");
        assert_eq!(options("xtask bench wind"), "no measurement");
    }
}
