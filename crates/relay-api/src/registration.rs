//! Registration: a server asks a relay to serve it, and says who may leave mail for it; and leaving.
//!
//! `PUT` and `DELETE` [`crate::endpoints::MAILBOX`], signed by the server that the mailbox is for.

use std::time::Duration;

use restante_federation_proto::{ServerGlob, ServerName, Timestamp, canonicalise};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::SENDERS_MAX;

/// The body of the `PUT`. A later registration replaces an earlier one and needs no invite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistrationRequest {
    /// The server's relay record, signed by itself.
    pub record: Box<RawValue>,
    /// Who may leave mail.
    #[serde(default)]
    pub senders: Senders,
    /// How long mail is kept, milliseconds; the relay's own time if that is shorter, or if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_live_ms: Option<u64>,
    /// The invite's token, where the relay wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
    /// The server's self-signed key document, for a relay that can't fetch it. It counts only with an invite that names
    /// the server, or if a key that is believed already signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Box<RawValue>>,
    /// Whether the relay is asked to deliver the server's own mail onward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outgoing: bool,
    /// The caller's time of signing; bounds replays.
    pub signed_at: Timestamp,
}

/// Who may leave mail in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Senders {
    /// These may, unless blocked.
    #[serde(default = "everybody")]
    pub allow: Vec<ServerGlob>,
    /// These may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block: Vec<ServerGlob>,
}

fn everybody() -> Vec<ServerGlob> {
    vec!["*".parse().expect("a star is a pattern")]
}

impl Default for Senders {
    fn default() -> Self {
        Self { allow: everybody(), block: Vec::new() }
    }
}

impl Senders {
    /// Whether `origin` may leave mail.
    pub fn permit(&self, origin: &ServerName) -> bool {
        let is_in = |list: &[ServerGlob]| list.iter().any(|pattern| pattern.matches(origin));
        !is_in(&self.block) && is_in(&self.allow)
    }

    /// Whether there are no more patterns than a relay takes.
    pub fn fit(&self) -> bool {
        self.allow.len() + self.block.len() <= SENDERS_MAX
    }
}

/// The answer to a registration: what the relay grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationAnswer {
    /// How long mail is kept, milliseconds.
    pub time_to_live_ms: u64,
    /// Envelopes that the mailbox holds at most.
    pub envelopes_max: u64,
    /// Bytes that the mailbox holds at most.
    pub bytes_max: u64,
    /// Envelopes that one origin may fill of it.
    pub origin_envelopes_max: u64,
    /// Bytes that one origin may fill of it.
    pub origin_bytes_max: u64,
    /// What the server may have delivered onward; nothing where the relay does not do that.
    #[serde(default)]
    pub outgoing: Option<OutgoingGranted>,
}

/// How much of its own mail a server may have delivered onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingGranted {
    /// Envelopes to all destinations together.
    pub envelopes_max: u64,
    /// Their bytes.
    pub bytes_max: u64,
    /// Envelopes to one destination.
    pub destination_envelopes_max: u64,
    /// Their bytes.
    pub destination_bytes_max: u64,
}

/// The body of the `DELETE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveRequest {
    /// What becomes of the mail that is there.
    pub mail: LeftMail,
    /// The caller's time of signing; bounds replays.
    pub signed_at: Timestamp,
}

/// What becomes of the mail of a server that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftMail {
    /// It is dropped at once.
    Drop,
    /// It can be collected until it expires; nothing is added, unless the relay is open or lists the server.
    Keep,
}

impl RegistrationRequest {
    /// The body in canonical form, ready to be signed.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        canonical(serde_json::to_vec(self))
    }

    /// How long the server wants its mail to be kept.
    pub fn time_to_live(&self) -> Option<Duration> {
        self.time_to_live_ms.map(Duration::from_millis)
    }
}

impl LeaveRequest {
    /// The body in canonical form, ready to be signed.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        canonical(serde_json::to_vec(self))
    }
}

fn canonical(json: serde_json::Result<Vec<u8>>) -> Vec<u8> {
    let json = json.expect("texts, numbers and JSON are JSON");
    canonicalise(&json).expect("what serde_json wrote is well-formed").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(json: &str) -> Senders {
        serde_json::from_str(json).unwrap()
    }

    fn permits(senders: &Senders, origin: &str) -> bool {
        senders.permit(&origin.parse().unwrap())
    }

    #[test]
    fn everybody_may_leave_mail_unless_the_owner_says_otherwise() {
        assert_eq!(senders("{}"), Senders::default());
        assert!(permits(&Senders::default(), "a.example"));
        assert!(!permits(&senders(r#"{"allow":[]}"#), "a.example"));
    }

    #[test]
    fn who_is_blocked_is_out_though_allowed() {
        let senders = senders(r#"{"allow":["*.example"],"block":["evil.example"]}"#);
        assert!(permits(&senders, "a.example:8448"));
        assert!(!permits(&senders, "evil.example"));
        assert!(!permits(&senders, "a.test"));
    }

    #[test]
    fn a_misspelt_list_is_an_error_and_not_everybody() {
        assert!(serde_json::from_str::<Senders>(r#"{"allowed":["a.example"]}"#).is_err());
    }

    #[test]
    fn the_body_that_is_signed_is_canonical() {
        let request = RegistrationRequest {
            record: RawValue::from_string(r#"{"b":1, "a":2}"#.to_owned()).unwrap(),
            senders: Senders::default(),
            time_to_live_ms: None,
            invite: None,
            keys: None,
            outgoing: false,
            signed_at: Timestamp::from_millis(7),
        };
        let json = String::from_utf8(request.to_canonical_json()).unwrap();
        assert_eq!(json, r#"{"record":{"a":2,"b":1},"senders":{"allow":["*"]},"signed_at":7}"#);
        let outgoing = RegistrationRequest { outgoing: true, ..request };
        let json = String::from_utf8(outgoing.to_canonical_json()).unwrap();
        assert!(json.starts_with(r#"{"outgoing":true,"#), "{json}");
    }
}
