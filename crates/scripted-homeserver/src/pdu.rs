//! Events: made, signed, read and checked.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use restante_federation::Identity;
use restante_federation_proto::{
    KeyId, PublicKey, RoomVersion, ServerName, Timestamp, UserId, canonicalise, event_id,
    sign_json, verify_event_signature,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// An event with its id, as a server sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// The event's id.
    pub id: String,
    /// Its room.
    pub room_id: String,
    /// The server of its sender.
    pub server: ServerName,
    /// Its type.
    pub kind: String,
    /// What makes it state.
    pub state_key: Option<String>,
    /// The events that it follows.
    pub prev_events: BTreeSet<String>,
    /// One more than the largest of theirs.
    pub depth: u64,
    /// When it was written, by its sender's clock.
    pub sent_at: Timestamp,
    /// Its JSON.
    pub json: Value,
}

/// What a new event says.
pub(crate) struct Draft<'a> {
    pub(crate) room_id: &'a str,
    pub(crate) version: RoomVersion,
    pub(crate) kind: &'a str,
    pub(crate) state_key: Option<&'a str>,
    pub(crate) content: Value,
    pub(crate) prev_events: BTreeSet<String>,
    pub(crate) auth_events: Vec<String>,
    pub(crate) depth: u64,
    pub(crate) sent_at: Timestamp,
}

/// The one user of each server.
pub(crate) fn user_of(server: &ServerName) -> String {
    format!("@user:{server}")
}

impl Pdu {
    /// Writes an event in the name of the user of `author`.
    pub(crate) fn write(draft: Draft<'_>, author: &Identity) -> Self {
        let mut event = json!({
            "type": draft.kind, "room_id": draft.room_id, "sender": user_of(&author.server_name),
            "content": draft.content, "prev_events": draft.prev_events, "auth_events": draft.auth_events,
            "depth": draft.depth, "origin_server_ts": draft.sent_at,
        });
        if let Some(state_key) = draft.state_key {
            event["state_key"] = state_key.into();
        }
        event["hashes"] = json!({ "sha256": content_hash(&event) });
        let mut redacted = redacted(&event);
        sign_json(&mut redacted, &author.server_name, &author.key);
        event["signatures"] = redacted["signatures"].clone();
        Self::read(event, draft.version).expect("it was written with all that is read")
    }

    /// Reads an event of another server; `None` if something is missing.
    pub(crate) fn read(json: Value, version: RoomVersion) -> Option<Self> {
        let id = event_id(json.to_string().as_bytes(), version).ok()?;
        let sender: UserId = json["sender"].as_str()?.parse().ok()?;
        let prev_events = json["prev_events"].as_array()?.iter();
        Some(Self {
            id,
            room_id: json["room_id"].as_str()?.to_owned(),
            server: sender.server_name().clone(),
            kind: json["type"].as_str()?.to_owned(),
            state_key: json["state_key"].as_str().map(str::to_owned),
            prev_events: prev_events.filter_map(Value::as_str).map(str::to_owned).collect(),
            depth: json["depth"].as_u64()?,
            sent_at: Timestamp::from_millis(json["origin_server_ts"].as_u64()?),
            json,
        })
    }

    /// The key that its server signed it with.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        let keys = self.json["signatures"][self.server.as_str()].as_object()?;
        keys.keys().next()?.parse().ok()
    }

    /// Whether its server wrote it so, the content included.
    pub(crate) fn is_genuine(&self, version: RoomVersion, key_id: &KeyId, key: &PublicKey) -> bool {
        let json = self.json.to_string();
        self.json["hashes"]["sha256"].as_str() == Some(&content_hash(&self.json))
            && verify_event_signature(json.as_bytes(), version, &self.server, key_id, key).is_ok()
    }

    /// What a user wrote, if that is what it is.
    pub fn body(&self) -> Option<&str> {
        self.json["content"]["body"].as_str()
    }
}

fn content_hash(event: &Value) -> String {
    let mut covered = event.clone();
    if let Some(members) = covered.as_object_mut() {
        members.retain(|name, _| !["hashes", "signatures", "unsigned"].contains(&name.as_str()));
    }
    STANDARD_NO_PAD.encode(Sha256::digest(canonical(&covered)))
}

/// What redaction leaves of the events that are written here, in every room version up to 11.
fn redacted(event: &Value) -> Map<String, Value> {
    let content = match event["type"].as_str() {
        Some("m.room.create") => json!({ "creator": event["content"]["creator"] }),
        Some("m.room.member") => json!({ "membership": event["content"]["membership"] }),
        _ => json!({}),
    };
    let mut redacted = event.as_object().cloned().unwrap_or_default();
    redacted.insert("content".to_owned(), content);
    redacted
}

/// The canonical form of what was made here, without fractions.
pub(crate) fn canonical(json: &Value) -> Bytes {
    let text = json.to_string();
    canonicalise(text.as_bytes()).map_or_else(|_| Bytes::new(), |bytes| bytes.into_owned().into())
}
