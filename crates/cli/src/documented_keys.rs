//! The configuration keys of each program, read from the generated files, which hold every key.

use crate::args::Program;

const RELAY: &str = include_str!("generated/relay.toml");
const NODE: &str = include_str!("generated/node.toml");

/// The commented file that `restante config generate` prints.
pub(crate) fn generated(program: Program) -> &'static str {
    match program {
        Program::Relay => RELAY,
        Program::Node => NODE,
    }
}

/// One key, with its sections: `limits.body_bytes_max`, or a section as a whole: `relays`.
#[derive(Debug)]
pub(crate) struct DocumentedKey {
    /// Sections and key, joined by dots.
    pub(crate) path: String,
    /// Whether the value in the generated file is a string.
    pub(crate) is_text: bool,
    /// What the comment above says of a running program; a section says nothing unless it is a key itself.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "tests hold the files to what the programs apply")
    )]
    pub(crate) reload: Option<Reloaded>,
}

/// Whether a running program takes a changed value up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Without a restart.
    Yes,
    /// After a restart.
    No,
}

/// Every key and section of the program, commented ones too.
pub(crate) fn all(program: Program) -> Vec<DocumentedKey> {
    let (mut section, mut reload) = (String::new(), None);
    let mut keys = Vec::<DocumentedKey>::new();
    for line in generated(program).lines() {
        let line = line.trim_start_matches(['#', ' ']);
        match line {
            "Reload: yes" => reload = Some(Reloaded::Yes),
            "Reload: no" => reload = Some(Reloaded::No),
            _ => {}
        }
        let found = if let Some(name) = section_name(line) {
            section = format!("{name}.");
            Some(DocumentedKey { path: name.to_owned(), is_text: false, reload: reload.take() })
        } else {
            line.split_once(" = ").filter(|(key, _)| is_bare(key)).map(|(key, value)| {
                let (path, is_text) = (format!("{section}{key}"), value.starts_with('"'));
                DocumentedKey { path, is_text, reload: reload.take() }
            })
        };
        keys.extend(found.filter(|found| keys.iter().all(|known| known.path != found.path)));
    }
    keys
}

/// The key that was most likely meant.
pub(crate) fn nearest<'a>(path: &str, keys: &'a [DocumentedKey]) -> &'a str {
    let nearest = keys.iter().min_by_key(|key| distance(path, &key.path));
    nearest.map_or("", |key| &key.path)
}

fn section_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    name.split('.').all(is_bare).then_some(name)
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Insertions, removals and replacements that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
