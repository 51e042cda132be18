//! Keys that seal bodies at rest, as an operator keeps them in a file.
//!
//! Each line is `id key`: a name, and 32 random bytes in base64 (`openssl rand -base64 32`). The first key seals, all of them open;
//! to change keys, put another line first, and remove the old one when nothing is sealed with it. The word `plain` in the first
//! line seals nothing. `id lost` gives up what was sealed with that key: it is set aside like damaged mail.

mod sealing;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) use sealing::SealingKey;

/// Keys in a file: one, and its predecessors until nothing is sealed with them.
pub const KEYS_MAX: usize = 16;

/// Bytes of a key file: many times what [`KEYS_MAX`] lines and some comments need.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Characters of a key's id, which operators read and type.
const ID_CHARACTERS_MAX: usize = 64;

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read.
    #[error("cannot read the key file {path}; check that it exists and that this user may read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Strangers can read it.
    #[error("others than its owner can read the key file {path}; run chmod 600 on it")]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
    },
    /// A line is not as it must be.
    #[error(
        "line {number} of the key file is not \"id key\" with a key of 32 bytes in base64; make one with: openssl rand -base64 32"
    )]
    Line {
        /// Which, counted from 1.
        number: usize,
    },
    /// Two lines have the same id.
    #[error(
        "line {number} of the key file has the id of an earlier line; each key needs an id of its own"
    )]
    Repeated {
        /// Which, counted from 1.
        number: usize,
    },
    /// The first line is of a key that is lost.
    #[error("the first key of the key file is lost; put a key or the word plain before it")]
    FirstIsLost,
    /// There is no line.
    #[error("the key file holds no key; make one with: echo \"1 $(openssl rand -base64 32)\"")]
    Empty,
    /// There are more than [`KEYS_MAX`].
    #[error(
        "the key file holds more than {KEYS_MAX} keys; remove those with which nothing is sealed"
    )]
    TooMany,
}

/// Why sealed mail can't be opened with the keys that are there.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key is not in the file.
    #[error(
        "{envelopes} envelopes are sealed with the key {id}, which the key file does not hold; add its line, or \"{id} lost\" to give them up"
    )]
    Missing {
        /// Its id.
        id: String,
        /// What is sealed with it.
        envelopes: u64,
    },
    /// Another key has its id.
    #[error(
        "the key {id} of the key file is not the one that sealed mail here; restore its line, and give other keys other ids"
    )]
    Another {
        /// Its id.
        id: String,
    },
}

/// The keys of a key file.
#[derive(Debug, Clone)]
pub struct Keys {
    first: First,
    keys: Vec<(String, Material)>,
}

/// What the first line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    Key,
    Plain,
}

/// What a line says of its key.
#[derive(Debug, Clone)]
pub(crate) enum Material {
    Known(SealingKey),
    Lost,
}

impl Keys {
    /// Reads a key file.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let unreadable = |source| KeyFileError::Unreadable { path: path.into(), source };
        let file = std::fs::metadata(path).map_err(unreadable)?;
        if is_readable_by_others(&file) {
            return Err(KeyFileError::ReadableByOthers { path: path.into() });
        }
        if file.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::TooMany);
        }
        Self::parse(&std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads a key file's text.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let mut lines =
            lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
        let first = match lines.peek() {
            None => return Err(KeyFileError::Empty),
            Some((_, "plain")) => First::Plain,
            Some(_) => First::Key,
        };
        if first == First::Plain {
            lines.next();
        }
        let mut keys: Vec<(String, Material)> = Vec::new();
        for (number, line) in lines {
            let (id, material) = key(line).ok_or(KeyFileError::Line { number })?;
            if keys.iter().any(|(other, _)| *other == id) {
                return Err(KeyFileError::Repeated { number });
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyFileError::TooMany);
            }
            keys.push((id, material));
        }
        if first == First::Key && matches!(keys.first(), Some((_, Material::Lost))) {
            return Err(KeyFileError::FirstIsLost);
        }
        Ok(Self { first, keys })
    }

    /// No keys: nothing is sealed.
    pub fn none() -> Self {
        Self { first: First::Plain, keys: Vec::new() }
    }

    pub(crate) fn all(&self) -> &[(String, Material)] {
        &self.keys
    }

    /// The key that seals.
    pub(crate) fn sealing(&self) -> Option<(&str, &SealingKey)> {
        match (self.first, self.keys.first()) {
            (First::Key, Some((id, Material::Known(key)))) => Some((id, key)),
            _ => None,
        }
    }
}

fn key(line: &str) -> Option<(String, Material)> {
    let mut words = line.split_whitespace();
    let (id, key) = (words.next()?, words.next()?);
    let is_id = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if words.next().is_some() || id.len() > ID_CHARACTERS_MAX || !is_id(id) {
        return None;
    }
    let material = match key {
        "lost" => Material::Lost,
        key => Material::Known(SealingKey::new(STANDARD.decode(key).ok()?.try_into().ok()?)),
    };
    Some((id.to_owned(), material))
}

#[cfg(unix)]
fn is_readable_by_others(file: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_readable_by_others(_file: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn the_first_key_seals_and_all_are_known() {
        let keys =
            Keys::parse(&format!("# rotated in May\n\n2026-05 {A}\n 2025  {A} \nold lost\n"));
        let keys = keys.unwrap();

        assert_eq!(keys.sealing().map(|(id, _)| id), Some("2026-05"));
        let ids: Vec<_> = keys.all().iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["2026-05", "2025", "old"]);
    }

    #[test]
    fn the_word_plain_seals_nothing_and_keeps_the_keys() {
        let keys = Keys::parse(&format!("plain\n1 {A}")).unwrap();

        assert!(keys.sealing().is_none());
        assert_eq!(keys.all().len(), 1);
        assert!(Keys::parse("plain\n1 lost").unwrap().sealing().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let told = |text: &str| Keys::parse(text).unwrap_err().to_string();

        for line in ["1", "1 short", "1 AAAA", &format!("1 {A} more"), &format!("a/b {A}")] {
            assert!(told(&format!("# a comment\n{line}")).starts_with("line 2 "), "{line}");
        }
        assert!(told(&format!("1 {A}\n1 {A}")).starts_with("line 2 "));
        assert!(told("").contains("holds no key"));
        assert!(told("1 lost").contains("is lost"));
        let many: Vec<_> = (0..=KEYS_MAX).map(|number| format!("{number} {A}")).collect();
        assert!(told(&many.join("\n")).contains("more than 16"));
    }

    #[test]
    fn a_key_is_never_shown() {
        let keys = Keys::parse("1 bXkgc2VjcmV0IGtleSBvZiB0aGlydHktdHdvIGJ5dGU=").unwrap();

        let shown = format!("{keys:?}");
        assert!(!shown.contains("121") && !shown.contains("bXkg"), "{shown}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("1 {A}")).unwrap();
        let allow = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };

        for mode in [0o640, 0o604] {
            allow(mode);
            assert!(matches!(Keys::read(&path), Err(KeyFileError::ReadableByOthers { .. })));
        }
        allow(0o600);
        assert!(Keys::read(&path).is_ok());
        let none = Keys::read(&folder.path().join("none"));
        assert!(matches!(none, Err(KeyFileError::Unreadable { .. })));
    }
}
