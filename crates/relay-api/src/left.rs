//! `left`: an origin asks a relay what became of the mail that it left there, and takes back what it delivered itself.
//!
//! `POST` [`crate::endpoints::LEFT`], signed by the origin. A relay tells nobody of another's mail: what the caller did not
//! send is [`LeftState::Unknown`].

use restante_federation_proto::{ServerName, Timestamp, canonicalise};
use serde::{Deserialize, Serialize};

use crate::limits::LEFT_MAX;

/// A transaction of the caller's, by its duplicate key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftTransaction {
    /// Whom it is for.
    pub destination: ServerName,
    /// Its id.
    pub txn_id: String,
    /// SHA-256 of its canonical content, lower-case hex.
    pub content_sha256: String,
}

/// The request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRequest {
    /// What the caller asks about; at most [`LEFT_MAX`] with `withdraw`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<LeftTransaction>,
    /// What need not be delivered onward any more. What lies in a mailbox of the recipient's own stays there: it is the
    /// recipient's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdraw: Vec<LeftTransaction>,
    /// The caller's time of signing; bounds replays.
    pub signed_at: Timestamp,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAnswer {
    /// One for each that was asked about, in the same order.
    pub states: Vec<LeftState>,
}

/// What became of a transaction at a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftState {
    /// It waits there, be it refused by the homeserver that it was to be delivered to.
    Held,
    /// Its recipient has it, or a relay of its recipient's own: it was acknowledged, delivered onward, or passed on.
    Gone,
    /// The relay knows nothing of it: it never came, it expired or was dropped, or the relay lost it. Leave it again.
    Unknown,
}

impl LeftRequest {
    /// The body in canonical form, ready to be signed.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a struct of numbers and strings is JSON");
        canonicalise(&json).expect("what serde_json wrote is well-formed").into_owned()
    }

    /// Whether it names no more than a relay looks up at once.
    pub fn fits(&self) -> bool {
        self.ask.len() + self.withdraw.len() <= LEFT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_canonical_and_reads_back() {
        let asked = LeftTransaction {
            destination: "b.test".parse().unwrap(),
            txn_id: "1".to_owned(),
            content_sha256: "00".to_owned(),
        };
        let request = LeftRequest {
            ask: vec![asked],
            withdraw: Vec::new(),
            signed_at: Timestamp::from_millis(7),
        };
        let json = request.to_canonical_json();
        let expected = r#"{"ask":[{"content_sha256":"00","destination":"b.test","txn_id":"1"}],"signed_at":7}"#;
        assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
        assert_eq!(serde_json::from_slice::<LeftRequest>(&json).unwrap(), request);
        assert_eq!(serde_json::to_string(&LeftState::Gone).unwrap(), "\"gone\"");
    }
}
