//! What each minute of a soak was like, and whether the last ones were like those before.

use std::path::Path;
use std::time::Duration;

use crate::figures::{self, Figure, Target, Unit};
use crate::numbers::{Latencies, median};
use crate::process::RelayProcess;

/// What the last third may have of the second: minutes differ by themselves.
const GROWTH: f64 = 1.1;

/// The same of the 99th latency, which a single pause of the disk moves.
const GROWTH_99TH: f64 = 1.5;

/// Above the lines.
pub(super) const HEAD: &str =
    "deposits/s | median ms | 99th ms | resident MiB | database MiB | log MiB";

/// One minute.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Minute {
    rate: f64,
    median: f64,
    slow: f64,
    memory: f64,
    database: f64,
    log: f64,
}

impl Minute {
    pub(super) fn of(
        relay: &RelayProcess,
        latencies: &Latencies,
        took: Duration,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            rate: latencies.count() as f64 / took.as_secs_f64(),
            median: latencies.milliseconds(0.5),
            slow: latencies.milliseconds(0.99),
            memory: relay.memory_mib()?,
            database: mebibytes(relay.data(), ".sqlite")?,
            log: mebibytes(relay.data(), ".sqlite-wal")?,
        })
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{:10.0} | {:9.2} | {:7.2} | {:12.1} | {:12.1} | {:7.1}",
            self.rate, self.median, self.slow, self.memory, self.database, self.log
        )
    }
}

/// The files of `folder` whose names end so.
fn mebibytes(folder: &Path, ending: &str) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes as f64 / 1024.0 / 1024.0)
}

/// Prints what the last third had of the second; in the first the mailboxes fill.
pub(super) fn print_flatness(minutes: &[Minute]) {
    if minutes.len() < 3 {
        println!("Nothing can be said of less than three minutes.");
        return;
    }
    figures::print(&flatness(minutes));
}

fn flatness(minutes: &[Minute]) -> Vec<Figure> {
    let third = minutes.len() / 3;
    let (before, last) = minutes[minutes.len() - 2 * third..].split_at(third);
    let growth = |what: &str, of: fn(&Minute) -> f64, most| {
        let middle = |part: &[Minute]| median(&part.iter().map(of).collect::<Vec<_>>());
        let (before, last) = (middle(before), middle(last));
        // What was nothing and is nothing has not grown.
        let times = if before > 0.0 { last / before } else { 1.0 + last };
        let what = format!("{what}: the last third, of the second");
        Figure::alone(what, Unit::Times, times).wanted(Target::AtMost(most))
    };
    vec![
        growth("resident memory", |minute| minute.memory, GROWTH),
        growth("median latency", |minute| minute.median, GROWTH),
        growth("99th latency", |minute| minute.slow, GROWTH_99TH),
        growth("database and log", |minute| minute.database + minute.log, GROWTH),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_from_third_to_third_is_told_and_the_first_does_not_count() {
        let minute = |memory, database| Minute { memory, database, ..Minute::default() };
        let minutes = [
            minute(1.0, 1.0),
            minute(2.0, 50.0),
            minute(20.0, 100.0),
            minute(20.0, 100.0),
            minute(20.0, 200.0),
            minute(21.0, 200.0),
        ];
        let flat: Vec<_> = flatness(&minutes).iter().map(|figure| figure.value).collect();
        assert!((flat[0] - 1.025).abs() < 1e-9, "{flat:?}");
        assert!((flat[3] - 2.0).abs() < 1e-9, "{flat:?}");
    }
}
