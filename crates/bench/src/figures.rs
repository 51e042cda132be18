//! Figures beside their limits and targets, as rows of a table and bars of a plot. Pure.

use std::path::Path;

use anyhow::Context as _;

use crate::svg::{self, Bar};
use crate::table;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A second.
    PerSecond,
    /// MiB a second.
    Throughput,
    Milliseconds,
    Mebibytes,
    /// Of something that is 1.
    Times,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// So much of its limit at least.
    ShareAtLeast(f64),
    /// Less than its limit.
    BelowLimit,
    /// So much at most.
    AtMost(f64),
}

/// What a limit is, and how much.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    pub(crate) limit: Option<Beside>,
    pub(crate) target: Option<Target>,
}

impl Figure {
    /// A figure that nothing stands beside.
    pub(crate) fn alone(what: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { what: what.into(), unit, value, limit: None, target: None }
    }

    /// The same beside what limits it.
    pub(crate) fn beside(self, name: &'static str, value: f64) -> Self {
        Self { limit: Some(Beside { name, value }), ..self }
    }

    /// The same with what it should be.
    pub(crate) fn wanted(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// How much of its limit it is.
    pub(crate) fn share(&self) -> Option<f64> {
        let limit = self.limit.as_ref()?;
        (limit.value > 0.0).then(|| self.value / limit.value)
    }

    fn verdict(&self) -> &'static str {
        let is_met = match self.target {
            None => return "",
            Some(Target::ShareAtLeast(share)) => self.share().is_some_and(|own| own >= share),
            Some(Target::BelowLimit) => self.share().is_some_and(|own| own < 1.0),
            Some(Target::AtMost(most)) => self.value <= most,
        };
        if is_met { "met" } else { "missed" }
    }

    fn row(&self) -> Vec<String> {
        let limit = self.limit.as_ref();
        let target = match self.target {
            None => String::new(),
            Some(Target::ShareAtLeast(share)) => format!("{:.0} %", 100.0 * share),
            Some(Target::BelowLimit) => "below that".to_owned(),
            Some(Target::AtMost(most)) => format!("at most {}", text(most, self.unit)),
        };
        vec![
            self.what.clone(),
            text(self.value, self.unit),
            limit.map_or_else(String::new, |limit| limit.name.to_owned()),
            limit.map_or_else(String::new, |limit| text(limit.value, self.unit)),
            self.share().map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            target,
            self.verdict().to_owned(),
        ]
    }
}

fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 100.0 => format!("{value:.0}/s"),
        Unit::PerSecond => format!("{value:.1}/s"),
        Unit::Throughput => format!("{value:.1} MiB/s"),
        Unit::Milliseconds => format!("{value:.2} ms"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::Times => format!("{value:.2}"),
    }
}

/// Prints all of them.
pub(crate) fn print(figures: &[Figure]) {
    let rows: Vec<_> = figures.iter().map(Figure::row).collect();
    table::print(&["what", "measured", "beside", "that", "share", "target", ""], &rows);
}

/// Draws the shares of rates in their limits, and of whatever has a target.
pub(crate) fn draw(title: &str, figures: &[Figure], file: &Path) -> anyhow::Result<()> {
    let bars: Vec<_> = figures.iter().filter_map(bar).collect();
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, svg::bars(title, &bars))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("drawn: {}", file.display());
    Ok(())
}

fn bar(figure: &Figure) -> Option<Bar> {
    if figure.unit == Unit::Milliseconds && figure.target.is_none() {
        return None;
    }
    let (share, limit) = (figure.share()?, figure.limit.as_ref()?);
    let mark = match figure.target {
        Some(Target::ShareAtLeast(share)) => Some(share),
        Some(Target::BelowLimit) => Some(1.0),
        Some(Target::AtMost(_)) | None => None,
    };
    Some(Bar {
        label: format!("{} ({})", figure.what, limit.name),
        value: text(figure.value, figure.unit),
        share,
        mark,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deposits(value: f64) -> Figure {
        Figure::alone("deposit", Unit::PerSecond, value)
    }

    #[test]
    fn a_share_is_met_from_the_target_on() {
        let wanted = |value| deposits(value).beside("verify", 1000.0);
        let verdict = |value| wanted(value).wanted(Target::ShareAtLeast(0.6)).verdict();
        assert_eq!([600.0, 599.0].map(verdict), ["met", "missed"]);
        assert_eq!(deposits(1.0).wanted(Target::ShareAtLeast(0.6)).verdict(), "missed");
    }

    #[test]
    fn bounds_are_met_below_them() {
        let latency = |value| Figure::alone("wake-up", Unit::Milliseconds, value);
        let verdict = |value| latency(value).wanted(Target::AtMost(2.0)).verdict();
        assert_eq!([1.9, 2.1].map(verdict), ["met", "missed"]);
        let beside = |value| latency(value).beside("verify and two syncs", 3.0);
        let verdict = |value| beside(value).wanted(Target::BelowLimit).verdict();
        assert_eq!([2.9, 3.0].map(verdict), ["met", "missed"]);
        assert_eq!(latency(1.0).verdict(), "");
    }

    #[test]
    fn a_row_names_the_figure_its_limit_and_what_is_wanted() {
        let figure = deposits(3000.0).beside("verify", 6000.0).wanted(Target::ShareAtLeast(0.6));
        let expected = ["deposit", "3000/s", "verify", "6000/s", "50 %", "60 %", "missed"];
        assert_eq!(figure.row(), expected);
        assert_eq!(deposits(20.0).row()[1..], ["20.0/s", "", "", "", "", ""].map(String::from));
    }

    #[test]
    fn only_shares_that_say_something_are_drawn() {
        assert_eq!(bar(&deposits(1.0)), None);
        let slow = Figure::alone("a deposit, 99th", Unit::Milliseconds, 9.0);
        assert_eq!(bar(&slow.beside("verify, 99th", 3.0)), None);
        let figure = deposits(3.0).beside("read", 4.0).wanted(Target::BelowLimit);
        let drawn = bar(&figure).unwrap();
        assert_eq!((drawn.label.as_str(), drawn.mark), ("deposit (read)", Some(1.0)));
        assert!((drawn.share - 0.75).abs() < 1e-9);
    }
}
