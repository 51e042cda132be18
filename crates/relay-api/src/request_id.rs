//! The name of one delivery in the logs of every program that it passes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The header that carries it beside a request: a deposit, a collect, a direct send.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Characters of an id: a UUID fits, and what a stranger writes into our logs stays short.
const CHARS_MAX: usize = 64;

/// Letters, digits, `-`, `_` and `.`: it is written into logs as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// A text is no request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to {CHARS_MAX} letters, digits, '-', '_' or '.'")]
pub struct RequestIdError;

impl RequestId {
    /// An id from a random number.
    pub fn of(random: u64) -> Self {
        Self(format!("{random:016x}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_owned())) } else { Err(RequestIdError) }
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;

    fn try_from(text: String) -> Result<Self, RequestIdError> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_disturb_a_log_is_no_id() {
        assert_eq!(RequestId::of(7).as_str().parse(), Ok(RequestId::of(7)));
        assert!("a".repeat(64).parse::<RequestId>().is_ok());
        for text in ["", "a b", "a\nb", "ä", &"a".repeat(65)] {
            assert_eq!(text.parse::<RequestId>(), Err(RequestIdError), "{text:?}");
        }
    }
}
