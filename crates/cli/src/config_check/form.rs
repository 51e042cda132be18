//! Finds every key that a configuration does not know, lacks, or has with a value of the wrong kind.
//!
//! Reading stops at the first mistake. So each mistake is noted, mended with the default, and reading begins anew.

mod place;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::finding::{Finding, Place, Severity, line};
use crate::args::Program;
use crate::documented_keys::{self, DocumentedKey};
use crate::environment::Override;
pub(super) use place::line_of_key;
use place::{Step, locate, path_text};

/// More mistakes than anybody mends in one go.
const MISTAKES_MAX: usize = 200;

/// A file that is to be checked.
pub(super) struct Form<'a> {
    pub(super) text: &'a str,
    pub(super) table: &'a Spanned<DeTable<'a>>,
    pub(super) program: Program,
    /// Whether lines could not be read: what they set is not missing.
    pub(super) broken: bool,
}

impl Form<'_> {
    /// What the file means, its mistakes mended with defaults, and its mistakes. What the environment sets counts as set.
    pub(super) fn check<C: DeserializeOwned>(&self, overrides: &[Override]) -> Read<C> {
        let documented = documented_keys::all(self.program);
        let defaults = documented_keys::generated(self.program);
        let mut read = Read { config: None, findings: Vec::new(), mended: Vec::new() };
        let Ok(defaults) = DeTable::parse(defaults) else { return read };
        let mut table = self.table.clone();
        for set in overrides {
            // Its own mistakes are found apart from the file's.
            let steps: Vec<Step> =
                set.path.split('.').map(|key| Step::Key(key.to_owned())).collect();
            if let Some(default) = place::value(defaults.get_ref(), &steps) {
                place::set(table.get_mut(), &steps, default.clone());
            }
        }
        for _ in 0..MISTAKES_MAX {
            let error = match C::deserialize(toml::Deserializer::from(table.clone())) {
                Ok(config) => {
                    read.config = Some(config);
                    return read;
                }
                Err(error) => error,
            };
            let mistake = Mistake::read(&error, &table);
            if !self.broken || !matches!(mistake, Mistake::Missing(_)) {
                read.findings.push(mistake.finding(self, &error, &documented));
            }
            read.mended.push(path_text(mistake.steps()));
            if !mistake.mend(table.get_mut(), defaults.get_ref()) {
                break;
            }
        }
        read
    }
}

/// What became of a file.
pub(super) struct Read<C> {
    /// What it means with its mistakes mended; none if one can't be mended.
    pub(super) config: Option<C>,
    pub(super) findings: Vec<Finding>,
    /// Keys whose value in `config` is not the file's.
    pub(super) mended: Vec<String>,
}

/// What is wrong with one entry.
enum Mistake {
    /// A key that nobody knows.
    Unknown(Vec<Step>),
    /// A value of the wrong kind.
    Value(Vec<Step>),
    /// A key without a default is not there.
    Missing(Vec<Step>),
}

impl Mistake {
    fn read(error: &Error, table: &Spanned<DeTable<'_>>) -> Self {
        let mut path =
            error.span().and_then(|span| locate(table.get_ref(), &span)).unwrap_or_default();
        if let Some(field) = quoted(error.message(), "missing field `") {
            // The span of the file as a whole is its beginning, where its first key is.
            while !path.is_empty() && !place::is_table(table.get_ref(), &path) {
                path.pop();
            }
            return Self::Missing([path, vec![Step::Key(field)]].concat());
        }
        match quoted(error.message(), "unknown field `") {
            Some(field) if path.last() != Some(&Step::Key(field.clone())) => {
                Self::Unknown([path, vec![Step::Key(field)]].concat())
            }
            Some(_) => Self::Unknown(path),
            None => Self::Value(path),
        }
    }

    fn steps(&self) -> &[Step] {
        match self {
            Self::Unknown(steps) | Self::Value(steps) | Self::Missing(steps) => steps,
        }
    }

    fn finding(&self, form: &Form<'_>, error: &Error, documented: &[DocumentedKey]) -> Finding {
        let at = error.span().map(|span| Place::Line(line(form.text, span.start)));
        let (place, text) = match self {
            Self::Unknown(steps) => {
                let path = path_text(steps);
                let nearest = documented_keys::nearest(&path, documented);
                (at, format!("there is no key {path}; did you mean {nearest}?"))
            }
            Self::Value(steps) if steps.is_empty() => (at, error.message().to_owned()),
            Self::Value(steps) => (at, format!("{}: {}", path_text(steps), error.message())),
            Self::Missing(steps) => {
                // Of the file as a whole, every line would do.
                let at = at.filter(|_| steps.len() > 1);
                (at, format!("{} is missing, and has no default", path_text(steps)))
            }
        };
        Finding { place: place.unwrap_or(Place::Default), severity: Severity::Wrong, text }
    }

    /// Puts the default in the mistake's place, or takes the entry out; `false` if there is nothing to mend.
    fn mend<'a>(&self, table: &mut DeTable<'a>, defaults: &DeTable<'a>) -> bool {
        let default = |steps: &[Step]| -> Option<Spanned<DeValue<'a>>> {
            place::value(defaults, steps).cloned()
        };
        // Half an entry of a list would be the next mistake.
        let entry = self.steps().iter().rposition(|step| matches!(step, Step::Index(_)));
        if let Some(entry) = entry {
            return place::remove(table, &self.steps()[..=entry]);
        }
        match self {
            Self::Unknown(steps) => place::remove(table, steps),
            Self::Value(steps) => {
                // A default that is refused as well is none.
                let mended = default(steps)
                    .filter(|default| {
                        place::value(table, steps).is_none_or(|is| is.span() != default.span())
                    })
                    .is_some_and(|default| place::set(table, steps, default));
                mended || place::remove(table, steps)
            }
            Self::Missing(steps) => match default(steps) {
                Some(default) => place::set(table, steps, default),
                // A section that is optional as a whole goes out whole.
                None => place::remove(table, &steps[..steps.len().saturating_sub(1)]),
            },
        }
    }
}

fn quoted(message: &str, before: &str) -> Option<String> {
    let rest = message.strip_prefix(before)?;
    rest.split_once('`').map(|(field, _)| field.to_owned())
}
