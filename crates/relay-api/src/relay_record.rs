//! The relay record: a server's signed statement of which relays hold its mail (ARCHITECTURE.md, "The wire").

use std::time::Duration;

use restante_federation_proto::{
    KeyId, PublicKey, ServerName, SigningKey, Timestamp, to_signed_json, verify_json,
};
use serde::{Deserialize, Serialize};

use crate::limits::{RECORD_BYTES_MAX, RECORD_RELAYS_MAX};

/// How far ahead of the clock a record's version may lie: it is a time, and one from the far future would keep every
/// later record out.
pub const VERSION_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a relay's URL: far more than a scheme, a host of 255 bytes and a port take.
const URL_BYTES_MAX: usize = 512;

/// Which relays hold a server's mail. The highest version with a good signature counts until it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecord {
    /// Whose mail.
    pub server_name: ServerName,
    /// The relays; none says that there is none any more.
    pub relays: Vec<RecordedRelay>,
    /// When the server made it, milliseconds.
    pub version: Timestamp,
}

/// One relay in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRelay {
    /// Its name.
    pub server_name: ServerName,
    /// Where it is, for names that discovery can't find. A stranger wrote it: it must not reach addresses that are
    /// denied to strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Lower is preferred: whoever uses only some of many relays uses these. Those that are used are asked at once.
    pub priority: u32,
}

/// Why a record does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayRecordError {
    /// Not of the form, or too large.
    #[error("malformed relay record")]
    Malformed,
    /// Made in another server's name.
    #[error("the relay record speaks of another server")]
    OtherServer,
    /// From the future.
    #[error("the relay record's version lies more than a day ahead; check the server's clock")]
    Ahead,
    /// No signature of the server verifies.
    #[error("the relay record's signature does not verify")]
    Signature,
}

impl RelayRecord {
    /// The record, signed by its server's key, as canonical JSON.
    pub fn signed(&self, key: &SigningKey) -> Vec<u8> {
        to_signed_json(self, &self.server_name, key)
    }

    /// Reads a record; says nothing about its signature.
    pub fn parse(json: &[u8], now: Timestamp) -> Result<Self, RelayRecordError> {
        if json.len() > RECORD_BYTES_MAX {
            return Err(RelayRecordError::Malformed);
        }
        let record: Self = serde_json::from_slice(json).map_err(|_| RelayRecordError::Malformed)?;
        let long =
            |relay: &RecordedRelay| relay.url.as_ref().is_some_and(|url| url.len() > URL_BYTES_MAX);
        if record.relays.len() > RECORD_RELAYS_MAX || record.relays.iter().any(long) {
            return Err(RelayRecordError::Malformed);
        }
        if record.version > now.after(VERSION_AHEAD_MAX) {
            return Err(RelayRecordError::Ahead);
        }
        Ok(record)
    }

    /// The ids of the keys that `server` claims to have signed with.
    pub fn key_ids(json: &[u8], server: &ServerName) -> Vec<KeyId> {
        crate::signatures::key_ids(json, server)
    }

    /// Reads a record and checks that `server` made it and signed it with `key`.
    pub fn verify(
        json: &[u8],
        server: &ServerName,
        (key_id, key): (&KeyId, &PublicKey),
        now: Timestamp,
    ) -> Result<Self, RelayRecordError> {
        let record = Self::parse(json, now)?;
        if record.server_name != *server {
            return Err(RelayRecordError::OtherServer);
        }
        verify_json(json, server, key_id, key).map_err(|_| RelayRecordError::Signature)?;
        Ok(record)
    }
}
