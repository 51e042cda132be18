//! What the documents name exists.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A name in backticks with so many underscores is a test's: they are sentences.
const WORDS_MIN: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below `folder` that end in `.ENDING`, without what is built.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
}

fn all(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join(folder), ending, &mut found);
    found
}

fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in all("crates", "rs") {
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split("fn ").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}

fn is_a_sentence(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    // Metrics bear the program's name.
    let is_a_metric = text.starts_with("restante_");
    !is_a_metric && text.matches('_').count() >= WORDS_MIN && text.chars().all(letters)
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let functions = functions();
    let mut missing = Vec::new();
    for path in all("docs", "md") {
        let text = fs::read_to_string(&path).unwrap();
        let quoted = text.split('`').skip(1).step_by(2).filter(|quoted| is_a_sentence(quoted));
        let absent = quoted.filter(|name| !functions.contains(*name));
        missing.extend(absent.map(|name| format!("{}: {name}", path.display())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_file_that_a_document_links_to_is_there() {
    let mut missing = Vec::new();
    let at_the_top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let top = at_the_top.iter().map(|name| root().join(name));
    for path in all("docs", "md").into_iter().chain(top) {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            let is_a_file = !target.is_empty() && !target.contains("://");
            if is_a_file && !path.parent().unwrap().join(target).exists() {
                missing.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_example_in_a_comment_counts_on_being_run() {
    // `cargo xtask test` runs no doc tests: each would be a program to link.
    let fence = ["///", " ```"].concat();
    let has_one = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(&fence);
    let found: Vec<_> = all("crates", "rs").into_iter().filter(has_one).collect();
    assert!(found.is_empty(), "make these tests: {found:#?}");
}
