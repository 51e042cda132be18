//! One thing that is wrong or odd in a configuration, and where.

use std::fmt;

/// Whether the program starts all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It does not start, or does not do what is meant.
    Wrong,
    /// It starts; the operator should know.
    Odd,
}

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Nowhere in particular: what is not set.
    Default,
    /// A line of the file, from 1.
    Line(usize),
    /// A variable of the environment.
    Variable(String),
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(super) place: Place,
    pub(crate) severity: Severity,
    pub(super) text: String,
}

/// One finding about the value of a key, before it is known where that is set.
#[derive(Debug)]
pub(super) struct Remark {
    pub(super) key: String,
    pub(super) severity: Severity,
    pub(super) text: String,
}

impl Remark {
    pub(super) fn wrong(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), severity: Severity::Wrong, text: text.into() }
    }

    pub(super) fn odd(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), severity: Severity::Odd, text: text.into() }
    }
}

/// What the parser says of the form of the file.
pub(super) fn of_syntax(text: &str, error: &toml::de::Error) -> Finding {
    let place = error.span().map_or(Place::Default, |span| Place::Line(line(text, span.start)));
    Finding { place, severity: Severity::Wrong, text: error.message().to_owned() }
}

/// A variable that can't be read; the text begins with its name.
pub(super) fn of_environment(text: &str) -> Finding {
    let (variable, text) = text.split_once(": ").unwrap_or((text, "cannot be read"));
    let place = Place::Variable(variable.to_owned());
    Finding { place, severity: Severity::Wrong, text: text.to_owned() }
}

/// The line, from 1, of the byte at `offset`.
pub(super) fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

impl Finding {
    /// As it is shown among others, with the file.
    pub(crate) fn line(&self, file: &impl fmt::Display) -> String {
        let odd = match self.severity {
            Severity::Wrong => "",
            Severity::Odd => "warning: ",
        };
        format!("{odd}{file}: {self}")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Default => write!(f, "{}", self.text),
            Place::Line(line) => write!(f, "line {line}: {}", self.text),
            Place::Variable(name) => write!(f, "{name}: {}", self.text),
        }
    }
}
