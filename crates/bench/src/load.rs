//! What the relay reaches under load, beside what the HTTP stack and the disk reach without it, in turns.

mod acknowledgements;
mod collects;
mod compare;
mod deposits;
mod mailboxes;
mod mixed;
mod wake;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::figures::{self, Figure};
use compare::Other;

/// What is measured, and how long.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Seconds of each turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns of each subject; medians are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
    /// Connections at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Mailboxes at most; others have a hundredth of that, and one
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    mailboxes: u32,
    /// Bodies, KiB; some figures are about those of 4 KiB alone
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 64, 512], value_parser = clap::value_parser!(u16).range(1..=1024))]
    sizes: Vec<u16>,
    /// Only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Where the plot goes
    #[arg(long, value_name = "FILE", default_value = "target/bench.svg")]
    svg: PathBuf,
    /// Another server to set the same load against, with deposits and collecting one at a time: http://host:port
    #[arg(long, value_name = "URL", requires = "compare_name")]
    compare: Option<String>,
    /// Its server name
    #[arg(long, value_name = "NAME")]
    compare_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Deposits with bodies of 1, 4, 64 and 512 KiB
    Deposits,
    /// Deposits with a proof
    Proofs,
    /// Deposits into one, some and many mailboxes
    Mailboxes,
    /// Collecting in batches
    Collects,
    /// Acknowledging in batches
    Acknowledgements,
    /// From a deposit to the answer of who waits for it
    Wake,
    /// Deposits while owners collect and acknowledge
    Mixed,
}

impl Load {
    fn turns(&self) -> std::ops::Range<u16> {
        0..self.turns
    }

    /// KiB.
    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.sizes.iter().copied().map(usize::from)
    }

    fn connections(&self) -> usize {
        usize::from(self.connections)
    }
}

/// Measures, prints the table and draws the plot.
pub(crate) async fn run(program: &Path, load: &Load) -> anyhow::Result<()> {
    let other = load.compare.as_deref().zip(load.compare_name.as_deref());
    let mut figures = Vec::new();
    if let Some((url, name)) = other {
        let other = Other { address: compare::address(url)?, server_name: name.parse()? };
        figures.extend(compare::measure(program, load, &other).await?);
    }
    for kind in kinds(load) {
        let name = kind.to_possible_value().map(|value| value.get_name().to_owned());
        println!("{} …", name.unwrap_or_default());
        figures.extend(measure(program, load, kind).await?);
    }
    println!();
    println!(
        "Signed deposits of encrypted mail, durable; load, relay and limits share the machine; medians of {} turns of {} s, \
         {} connections.",
        load.turns, load.seconds, load.connections
    );
    figures::print(&figures);
    figures::draw("Restante's relay: share of the limits", &figures, &load.svg)
}

/// A comparison alone is asked for as such.
fn kinds(load: &Load) -> Vec<Kind> {
    match (load.only.is_empty(), &load.compare) {
        (false, _) => load.only.clone(),
        (true, Some(_)) => Vec::new(),
        (true, None) => Kind::value_variants().to_vec(),
    }
}

async fn measure(program: &Path, load: &Load, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    match kind {
        Kind::Deposits => deposits::measure(program, load).await,
        Kind::Proofs => deposits::measure_with_proofs(program, load).await,
        Kind::Mailboxes => mailboxes::measure(program, load).await,
        Kind::Collects => collects::measure(program, load).await,
        Kind::Acknowledgements => acknowledgements::measure(program, load).await,
        Kind::Wake => wake::measure(program, load).await,
        Kind::Mixed => mixed::measure(program, load).await,
    }
}
