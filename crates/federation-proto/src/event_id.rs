//! Event ids: the reference hash of a redacted PDU, by room version
//! (Matrix specification, "Room versions", and server-server API, "Calculating the reference hash").

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::CanonicalJsonError;
use crate::redaction::redacted;

/// Longest event id that is accepted, in bytes (the specification's limit).
const EVENT_ID_BYTES_MAX: usize = 255;

/// A room version whose redaction rules and event id format are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the specification's numbers")]
pub enum RoomVersion {
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    V8,
    V9,
    V10,
    V11,
    V12,
}

/// Why a PDU has no event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventIdError {
    /// A room version unknown here.
    #[error("room version {0:?} is not known")]
    UnknownVersion(String),
    /// The PDU is not a JSON object with the members that every PDU has.
    #[error("malformed PDU: {0}")]
    Malformed(String),
}

const VERSIONS: [(&str, RoomVersion); 12] = [
    ("1", RoomVersion::V1),
    ("2", RoomVersion::V2),
    ("3", RoomVersion::V3),
    ("4", RoomVersion::V4),
    ("5", RoomVersion::V5),
    ("6", RoomVersion::V6),
    ("7", RoomVersion::V7),
    ("8", RoomVersion::V8),
    ("9", RoomVersion::V9),
    ("10", RoomVersion::V10),
    ("11", RoomVersion::V11),
    ("12", RoomVersion::V12),
];

impl std::str::FromStr for RoomVersion {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        VERSIONS
            .into_iter()
            .find(|(name, _)| *name == text)
            .map(|(_, version)| version)
            .ok_or_else(|| EventIdError::UnknownVersion(text.chars().take(255).collect()))
    }
}

impl From<CanonicalJsonError> for EventIdError {
    fn from(error: CanonicalJsonError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The event id of the PDU `pdu` (its JSON as received) in a room of `version`.
pub fn event_id(pdu: &[u8], version: RoomVersion) -> Result<String, EventIdError> {
    let canonical = crate::canonicalise(pdu)?;
    if version <= RoomVersion::V2 {
        return named_event_id(&canonical);
    }
    let hash = Sha256::digest(redacted(&canonical, version)?);
    let hash = if version == RoomVersion::V3 {
        STANDARD_NO_PAD.encode(hash)
    } else {
        URL_SAFE_NO_PAD.encode(hash)
    };
    Ok(format!("${hash}"))
}

/// Rooms of the first two versions name their events.
fn named_event_id(pdu: &[u8]) -> Result<String, EventIdError> {
    let members = crate::members(pdu)?;
    members
        .iter()
        .find(|member| member.name == "event_id")
        .and_then(|member| serde_json::from_slice(member.value).ok())
        .filter(|id: &String| id.starts_with('$') && id.len() <= EVENT_ID_BYTES_MAX)
        .ok_or_else(|| EventIdError::Malformed("expected an event_id that begins with $".into()))
}
