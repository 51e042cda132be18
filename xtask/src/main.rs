//! Developers' commands: `cargo xtask test`.

mod cargo;
mod python;
mod scenarios;
mod stream;
mod tally;
mod test;

use std::process::ExitCode;

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
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Test { filter } => test::run(filter.as_deref()),
    }
}
