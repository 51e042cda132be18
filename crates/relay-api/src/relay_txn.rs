//! `relay_txn`: Dendrite's way to collect one envelope.

use bytes::Bytes;
use restante_federation_proto::members;
use serde::Deserialize;

/// The JSON body of the GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct RelayTxnRequest {
    /// The entry that the caller has, to be acknowledged first; 0 asks only.
    #[serde(default)]
    pub entry_id: i64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayTxnResponse {
    /// The mailbox is empty.
    Empty,
    /// The oldest envelope.
    Envelope {
        /// Its number.
        entry_id: u64,
        /// The transaction's content.
        content: Bytes,
        /// The `org.restante.*` members as one object; empty for none.
        extras: Bytes,
    },
}

impl RelayTxnResponse {
    /// The JSON body. `entries_queued` means "this answer holds a transaction": Dendrite stops at `false`
    /// without acknowledging (facts of its API, in ARCHITECTURE.md).
    pub fn to_json(&self) -> Bytes {
        let Self::Envelope { entry_id, content, extras } = self else {
            let empty = br#"{"transaction":{"origin":"","origin_server_ts":0,"pdus":null},"entries_queued":false}"#;
            return Bytes::from_static(empty);
        };
        let mut json = Vec::with_capacity(content.len() + extras.len() + 96);
        json.extend_from_slice(b"{\"transaction\":");
        json.extend_from_slice(content);
        json.extend_from_slice(
            format!(",\"entry_id\":{entry_id},\"entries_queued\":true").as_bytes(),
        );
        append_members(&mut json, extras);
        json.push(b'}');
        json.into()
    }
}

/// Appends the members of the object `extras` to an object that is being written.
pub(crate) fn append_members(json: &mut Vec<u8>, extras: &[u8]) {
    if extras.is_empty() {
        return;
    }
    for member in members(extras).into_iter().flatten() {
        json.push(b',');
        json.extend_from_slice(member.raw);
    }
}
