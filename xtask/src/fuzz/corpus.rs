//! The corpus in the tree, `crates/fuzz-targets/corpus/TARGET.jsonl`: one input a line, a JSON string whose characters
//! U+0000 to U+00FF are the bytes. libFuzzer wants a file for each.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Bytes of one target's file: all of them together stay small enough to be read and replayed each time.
const FILE_BYTES_MAX: usize = 16 * 1024;

fn folder(workspace: &Path) -> PathBuf {
    workspace.join("crates/fuzz-targets/corpus")
}

/// The corpus of the target `name`.
pub(super) fn file(workspace: &Path, name: &str) -> PathBuf {
    folder(workspace).join(name).with_extension("jsonl")
}

/// The targets, by the names of their files.
pub(super) fn targets(workspace: &Path) -> Result<Vec<String>> {
    let files = files(&folder(workspace))?;
    let names = files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()));
    Ok(names.collect())
}

/// The files of `folder`, in the order of their names.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Writes each input of the corpus `file` into a file of its own, and nothing else, into `folder`.
pub(super) fn unpack(file: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for (number, line) in text.lines().enumerate() {
        fs::write(folder.join(number.to_string()), input(line)?)?;
    }
    Ok(())
}

/// Appends the inputs in `folders` that `file` does not hold, the smallest of each folder first, while there is room;
/// says how many.
pub(super) fn add(file: &Path, folders: &[&PathBuf]) -> Result<usize> {
    let mut text = fs::read_to_string(file)?;
    let mut held = text.lines().map(input).collect::<Result<HashSet<_>>>()?;
    let mut added = 0;
    for folder in folders {
        let files = files(folder)?;
        let mut inputs = files.iter().map(fs::read).collect::<std::io::Result<Vec<_>>>()?;
        inputs.sort_by_key(Vec::len);
        for bytes in inputs {
            let line = line(&bytes)?;
            if text.len() + line.len() < FILE_BYTES_MAX && held.insert(bytes) {
                text.push_str(&line);
                text.push('\n');
                added += 1;
            }
        }
    }
    fs::write(file, text)?;
    Ok(added)
}

fn input(line: &str) -> Result<Vec<u8>> {
    let text: String = serde_json::from_str(line).with_context(|| format!("no string: {line}"))?;
    text.chars().map(|letter| u8::try_from(letter).context("no byte")).collect()
}

fn line(bytes: &[u8]) -> Result<String> {
    let text: String = bytes.iter().copied().map(char::from).collect();
    let line = serde_json::to_string(&text)?;
    // Control characters beyond ASCII stand for themselves in JSON, and look like line ends to some editors.
    Ok(line.chars().map(shown).collect())
}

fn shown(letter: char) -> String {
    if letter.is_control() { format!("\\u{:04x}", u32::from(letter)) } else { letter.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_corpus() {
        let bytes: Vec<u8> = (0..=255).collect();
        let line = line(&bytes).unwrap();
        assert_eq!(input(&line).unwrap(), bytes);
        assert!(!line.chars().any(char::is_control));
    }
}
