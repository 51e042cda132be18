//! Places in a parsed file: from a span to a path, from a path to a value or a line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config_check::finding::line;

/// One step from a table or list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// `keys.notaries.url`: which entry of a list is meant, the line says.
pub(super) fn path_text(steps: &[Step]) -> String {
    let names = steps.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    names.collect::<Vec<_>>().join(".")
}

/// Whether a table is at `steps`.
pub(super) fn is_table(table: &DeTable<'_>, steps: &[Step]) -> bool {
    let Some((Step::Key(first), rest)) = steps.split_first() else { return steps.is_empty() };
    table.get(first.as_str()).is_some_and(|value| is_table_within(value.get_ref(), rest))
}

fn is_table_within(value: &DeValue<'_>, steps: &[Step]) -> bool {
    match (value, steps) {
        (DeValue::Table(_), []) => true,
        (DeValue::Table(table), _) => is_table(table, steps),
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
            array.get(*index).is_some_and(|element| is_table_within(element.get_ref(), rest))
        }
        _ => false,
    }
}

/// The innermost entry whose key or value holds `span`.
pub(super) fn locate(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    let mut best = None;
    search_table(table, span, &mut Vec::new(), &mut best);
    best.map(|(_, steps)| steps)
}

type Best = Option<(usize, Vec<Step>)>;

fn search_table(table: &DeTable<'_>, span: &Range<usize>, steps: &mut Vec<Step>, best: &mut Best) {
    for (key, value) in table {
        steps.push(Step::Key(key.get_ref().to_string()));
        note(&key.span(), span, steps, best);
        search_value(value, span, steps, best);
        steps.pop();
    }
}

fn search_value(
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    steps: &mut Vec<Step>,
    best: &mut Best,
) {
    note(&value.span(), span, steps, best);
    match value.get_ref() {
        DeValue::Table(table) => search_table(table, span, steps, best),
        DeValue::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                steps.push(Step::Index(index));
                search_value(element, span, steps, best);
                steps.pop();
            }
        }
        _ => {}
    }
}

fn note(place: &Range<usize>, wanted: &Range<usize>, steps: &[Step], best: &mut Best) {
    let holds = place.start <= wanted.start && wanted.end <= place.end;
    if holds && best.as_ref().is_none_or(|(length, _)| place.len() <= *length) {
        *best = Some((place.len(), steps.to_vec()));
    }
}

/// What is at `steps`.
pub(super) fn value<'t, 'a>(
    table: &'t DeTable<'a>,
    steps: &[Step],
) -> Option<&'t Spanned<DeValue<'a>>> {
    let (Step::Key(first), rest) = steps.split_first()? else { return None };
    let (_, found) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    match (rest, found.get_ref()) {
        ([], _) => Some(found),
        (_, DeValue::Table(inner)) => value(inner, rest),
        _ => None,
    }
}

/// Puts `new` at `steps`, in sections that are made where they are missing; `false` where there is no such place.
pub(super) fn set<'a>(table: &mut DeTable<'a>, steps: &[Step], new: Spanned<DeValue<'a>>) -> bool {
    let Some((Step::Key(first), rest)) = steps.split_first() else { return false };
    let known = table.iter_mut().find(|(key, _)| key.get_ref() == first);
    match (rest, known) {
        ([], Some((_, found))) => *found = new,
        ([], None) => drop(table.insert(key(first, &new), new)),
        (_, Some((_, found))) => {
            return match found.get_mut() {
                DeValue::Table(inner) => set(inner, rest, new),
                _ => false,
            };
        }
        (_, None) => {
            let (name, span) = (key(first, &new), new.span());
            let mut inner = DeTable::new();
            if !set(&mut inner, rest, new) {
                return false;
            }
            table.insert(name, Spanned::new(span, DeValue::Table(inner)));
        }
    }
    true
}

fn key<'a>(name: &str, value: &Spanned<DeValue<'a>>) -> Spanned<toml::de::DeString<'a>> {
    Spanned::new(value.span(), name.to_owned().into())
}

/// Takes out what is at `steps`; `false` if nothing was there.
pub(super) fn remove(table: &mut DeTable<'_>, steps: &[Step]) -> bool {
    let Some((Step::Key(first), rest)) = steps.split_first() else { return false };
    if rest.is_empty() {
        return table.remove(first.as_str()).is_some();
    }
    let found = table.iter_mut().find(|(key, _)| key.get_ref() == first);
    found.is_some_and(|(_, value)| remove_within(value.get_mut(), rest))
}

fn remove_within(value: &mut DeValue<'_>, steps: &[Step]) -> bool {
    match (value, steps) {
        (DeValue::Table(table), _) => remove(table, steps),
        (DeValue::Array(array), [Step::Index(index)]) => {
            if *index >= array.len() {
                return false;
            }
            let mut rest = DeArray::new();
            for (_, kept) in array.iter().enumerate().filter(|(at, _)| at != index) {
                rest.push(kept.clone());
            }
            *array = rest;
            true
        }
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
            array.get_mut(*index).is_some_and(|element| remove_within(element.get_mut(), rest))
        }
        _ => false,
    }
}

/// The line on which the key `path`, or the nearest section or key above it that the file has, is set.
pub(in crate::config_check) fn line_of_key(
    text: &str,
    table: &DeTable<'_>,
    path: &str,
) -> Option<usize> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    let within = match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => line_of_key(text, inner, rest),
        _ => None,
    };
    Some(within.unwrap_or_else(|| line(text, key.span().start)))
}
