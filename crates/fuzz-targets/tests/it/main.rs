//! Every input of the corpus keeps every promise of its target.
//!
//! `corpus/TARGET.jsonl` holds one input a line: a JSON string whose characters U+0000 to U+00FF are the bytes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod large;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use restante_fuzz_targets::{TARGETS, Target};

/// All of the corpus, in bytes: it is replayed by every test run, and read by people.
const CORPUS_BYTES_MAX: usize = 512 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn lines(target: &Target) -> Vec<String> {
    let file = corpus().join(target.name).with_extension("jsonl");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    text.lines().map(str::to_owned).collect()
}

fn input(line: &str) -> Vec<u8> {
    let text: String = serde_json::from_str(line).unwrap_or_else(|_| panic!("no string: {line}"));
    let byte = |letter| u8::try_from(letter).unwrap_or_else(|_| panic!("no byte: {letter:?}"));
    text.chars().map(byte).collect()
}

#[test]
fn every_input_of_the_corpus_keeps_its_promises() {
    for target in TARGETS {
        for (number, line) in lines(target).iter().enumerate() {
            let replayed = std::panic::catch_unwind(|| (target.check)(&input(line)));
            assert!(replayed.is_ok(), "line {} of {}: {line}", number + 1, target.name);
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let files = std::fs::read_dir(corpus()).unwrap().map(|file| file.unwrap().path());
    let named: BTreeSet<String> =
        files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let expected: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(named, expected);
}

#[test]
fn the_corpus_is_small_and_holds_nothing_twice() {
    let mut bytes = 0;
    for target in TARGETS {
        let lines = lines(target);
        bytes += lines.iter().map(String::len).sum::<usize>();
        let distinct: BTreeSet<_> = lines.iter().map(|line| input(line)).collect();
        assert_eq!(distinct.len(), lines.len(), "{} holds an input twice", target.name);
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
