//! Measures the built program from outside, over HTTP. `cargo xtask bench` runs it.
//!
//! Machines are shared and noisy: what is compared is measured in turns within one run, and only ratios are worth
//! keeping.

mod collectors;
mod connection;
mod crowds;
mod disk;
mod draining;
mod drive;
mod figures;
mod floods;
mod growth;
mod honest;
mod letters;
mod limits;
mod line;
mod load;
mod mail;
mod memory;
mod node;
mod numbers;
mod origin;
mod owner;
mod passing;
mod process;
mod schedule;
mod soak;
mod stage;
mod svg;
mod table;
mod wire;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use restante_federation_proto::ServerName;
use tokio::runtime::{self, Runtime};

#[derive(Debug, Parser)]
struct Args {
    /// The built program
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the relay reaches, beside what the same HTTP stack and the disk reach without it
    Load(load::Load),
    /// Whether a deposit costs more the more is stored
    Growth(growth::Growth),
    /// The memory of relay and node at rest, and of a relay with a lot of mail and many clients
    Memory(memory::Memory),
    /// Mixed load for a long time: whether memory, latency and disk stay as they are
    Soak(soak::Soak),
    /// What the node adds to a transaction that goes directly to its destination
    Passing(passing::Passing),
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
    /// Serves what the others compare with, until it is killed
    #[command(hide = true)]
    Limits {
        /// In whose name
        #[arg(long)]
        server_name: ServerName,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    process::raise_open_files();
    let program = args.program.context("say which program to measure: --program FILE");
    match args.what {
        What::Load(load) => one_thread()?.block_on(load::run(&program?, &load)),
        What::Growth(growth) => one_thread()?.block_on(growth::run(&program?, &growth)),
        What::Memory(memory) => one_thread()?.block_on(memory::run(&program?, &memory)),
        What::Soak(soak) => one_thread()?.block_on(soak::run(&program?, &soak)),
        What::Passing(passing) => one_thread()?.block_on(passing::run(&program?, &passing)),
        What::Floods { seconds } => many_threads()?.block_on(floods::run(&program?, seconds)),
        What::Crowds => many_threads()?.block_on(crowds::run(&program?)),
        What::Draining { transactions } => {
            many_threads()?.block_on(draining::run(&program?, transactions))
        }
        What::Limits { server_name } => many_threads()?.block_on(limits::run(server_name)),
    }
}

/// As the program under measurement has them.
fn many_threads() -> std::io::Result<Runtime> {
    runtime::Builder::new_multi_thread().enable_all().build()
}

/// For a load that shares the machine with what it measures: it hands nothing from one thread to another.
fn one_thread() -> std::io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
