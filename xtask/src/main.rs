//! Developers' commands: `cargo xtask test`, `cargo xtask bench`.

mod bench;
mod cargo;
mod python;
mod scenarios;
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
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Bench { bench } => bench::run(bench).unwrap_or_else(|trouble| {
            eprintln!("{trouble:#}");
            ExitCode::FAILURE
        }),
    }
}
