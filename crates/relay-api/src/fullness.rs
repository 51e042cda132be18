//! Which bound a deposit met: the member of a 429 `M_LIMIT_EXCEEDED` that a node understands.

use serde::{Deserialize, Serialize};

/// Name of the error's member.
pub const FULL_MEMBER: &str = "org.restante.full";

/// What has no room for a deposit. Nothing that is stored makes room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fullness {
    /// The mailbox: its owner has to collect.
    Mailbox,
    /// The origin's share of the mailbox, or of what the relay delivers onward: other senders' mail is still taken.
    Share,
    /// The relay as a whole, or its disk.
    Relay,
}

#[derive(Deserialize)]
struct FullError {
    #[serde(rename = "org.restante.full")]
    full: Fullness,
}

impl Fullness {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Share => "share",
            Self::Relay => "relay",
        }
    }

    /// What a person reads.
    pub fn text(self) -> &'static str {
        match self {
            Self::Mailbox => "The mailbox is full; nothing was stored",
            Self::Share => {
                "The sender's share of this mailbox, or of what is delivered onward, is full; nothing was stored, mail of others is still taken"
            }
            Self::Relay => "The relay is full; nothing was stored",
        }
    }

    /// The bound that an error's body names, if it names one.
    pub fn in_error(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<FullError>(body).ok().map(|error| error.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_bound_that_was_met() {
        for full in [Fullness::Mailbox, Fullness::Share, Fullness::Relay] {
            let body =
                format!(r#"{{"errcode":"M_LIMIT_EXCEEDED","{FULL_MEMBER}":"{}"}}"#, full.as_str());
            assert_eq!(Fullness::in_error(body.as_bytes()), Some(full));
        }
        for other in ["{}", "", r#"{"org.restante.full":"moon"}"#, "null"] {
            assert_eq!(Fullness::in_error(other.as_bytes()), None, "{other}");
        }
    }
}
