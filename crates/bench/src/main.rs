//! Measures the built program from outside, over HTTP. `cargo xtask bench` with `floods`, `crowds` or `draining` runs it.
//!
//! Machines are shared and noisy: what is compared is measured in turns within one run, and only ratios are worth
//! keeping.

mod connection;
mod crowds;
mod draining;
mod floods;
mod honest;
mod line;
mod origin;
mod process;
mod table;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Args {
    /// The built program
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What honest clients get while strangers flood the relay, beside what they get without
    Floods {
        /// Seconds of each turn
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// The relay's memory under many idle connections and many collects that wait
    Crowds,
    /// How fast a node that comes back empties its mailbox, without a line between them and over a slow one
    Draining {
        /// Transactions that wait for it
        #[arg(long, default_value_t = 10_000)]
        transactions: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    process::raise_open_files();
    match args.what {
        What::Floods { seconds } => floods::run(&args.program, seconds).await,
        What::Crowds => crowds::run(&args.program).await,
        What::Draining { transactions } => draining::run(&args.program, transactions).await,
    }
}
