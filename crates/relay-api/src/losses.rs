//! What a recipient never got: mail that was turned away, expired, or was dropped by the relay's operator.

use restante_federation_proto::{ServerName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Fullness;

/// Mail of one kind of loss, by origin. On the wire an empty object when there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// One entry for each origin and reason; at most [`crate::limits::LOSSES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<OriginLosses>,
}

/// What was lost of one origin, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginLosses {
    /// Who sent it, by the relay's word; none for the sum of those for whom there was no line.
    pub origin: Option<ServerName>,
    /// Which bound turned it away; none for what expired or was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Fullness>,
    /// Transactions. Mail that is turned away is counted each time that it is tried.
    pub count: u64,
    /// Their bytes, as received.
    pub bytes: u64,
    /// When the first was lost.
    pub since: Timestamp,
    /// When the last was lost.
    pub until: Timestamp,
}

impl Losses {
    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }
}
