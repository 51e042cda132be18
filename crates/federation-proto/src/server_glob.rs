//! Patterns over server names, as Matrix writes them: `*` is any text, `?` any one character.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ServerName;

/// Bytes of a pattern: as many as a server name may have.
const PATTERN_BYTES_MAX: usize = 255;

/// A pattern over server names without their ports, such as `*.example.org`. Letters match in either case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerGlob(Arc<str>);

/// A text is no pattern over server names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern for server names; expected letters, digits, '.', '-', ':', '[' and ']', with '*' for any text and '?' for any character"
)]
pub struct ServerGlobError(String);

impl ServerGlob {
    /// The pattern, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name, without its port, is of this form.
    pub fn matches(&self, server: &ServerName) -> bool {
        glob_matches(&self.0, &server.host().to_ascii_lowercase())
    }
}

impl FromStr for ServerGlob {
    type Err = ServerGlobError;

    fn from_str(text: &str) -> Result<Self, ServerGlobError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]*?_".contains(&byte);
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX || !text.bytes().all(allowed) {
            // What is quoted back is bounded, too.
            return Err(ServerGlobError(text.chars().take(PATTERN_BYTES_MAX).collect()));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl TryFrom<String> for ServerGlob {
    type Error = ServerGlobError;

    fn try_from(text: String) -> Result<Self, ServerGlobError> {
        text.parse()
    }
}

impl From<ServerGlob> for String {
    fn from(pattern: ServerGlob) -> Self {
        pattern.as_str().to_owned()
    }
}

impl fmt::Display for ServerGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is of the form of `pattern`, where `*` is any text and `?` any character. In the worst case it takes
/// as many steps as the product of both lengths.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                star = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => {
                // The last star takes one byte more.
                let Some((of_star, taken)) = star else { return false };
                at_pattern = of_star + 1;
                at_text = taken + 1;
                star = Some((of_star, at_text));
            }
        }
    }
    pattern[at_pattern..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, server: &str) -> bool {
        pattern.parse::<ServerGlob>().unwrap().matches(&server.parse().unwrap())
    }

    #[test]
    fn a_pattern_sees_the_name_without_its_port_in_either_case() {
        for server in ["a.example.org", "A.Example.ORG:8448"] {
            assert!(matches("*.EXAMPLE.org", server), "{server}");
        }
        assert!(!matches("*.example.org", "example.org"));
        assert!(matches("[2001:db8::*]", "[2001:db8::1]:8448"));
    }

    #[test]
    fn what_can_be_in_no_name_is_no_pattern() {
        for text in ["", "a b", "ä.example", "a/b", &"a".repeat(256)] {
            assert!(text.parse::<ServerGlob>().is_err(), "{text}");
        }
        assert!("a".repeat(255).parse::<ServerGlob>().is_ok());
    }

    proptest! {
        #[test]
        fn patterns_mean_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn naive(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if naive(rest, text) => true,
                    (Some((b'*', _)), Some((_, shorter))) => naive(pattern, shorter),
                    (Some((b'?', rest)), Some((_, shorter))) => naive(rest, shorter),
                    (Some((one, rest)), Some((other, shorter))) if one == other => naive(rest, shorter),
                    _ => false,
                }
            }
            prop_assert_eq!(glob_matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
