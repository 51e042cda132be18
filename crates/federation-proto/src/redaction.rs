//! What redaction leaves of a PDU, by room version (Matrix specification, "Room versions", "Redactions").

use crate::signed_json::object_of;
use crate::{EventIdError, Member, RoomVersion, members};

/// The redacted form of a canonical PDU, without the members that the reference hash leaves out
/// (`signatures` and `unsigned`); canonical as well.
pub(crate) fn redacted(pdu: &[u8], version: RoomVersion) -> Result<Vec<u8>, EventIdError> {
    let members = members(pdu)?;
    let value = |name: &'static str| {
        members
            .iter()
            .find(|member| member.name == name)
            .map(|member| member.value)
            .ok_or_else(|| EventIdError::Malformed(format!("expected the member {name}")))
    };
    let event_type: String = serde_json::from_slice(value("type")?)
        .map_err(|_| EventIdError::Malformed("expected text for the type".to_owned()))?;
    let content = redacted_content(value("content")?, &event_type, version)?;
    let content = [br#""content":"#, content.as_slice()].concat();
    let kept = members.iter().filter(|member| keeps_member(&member.name, version));
    Ok(object_of(kept.map(|member| match member.name.as_ref() {
        "content" => content.as_slice(),
        _ => member.raw,
    })))
}

fn keeps_member(name: &str, version: RoomVersion) -> bool {
    match name {
        "auth_events" | "content" | "depth" | "event_id" | "hashes" | "origin_server_ts"
        | "prev_events" | "room_id" | "sender" | "state_key" | "type" => true,
        "membership" | "origin" | "prev_state" => version < RoomVersion::V11,
        _ => false,
    }
}

fn redacted_content(
    content: &[u8],
    event_type: &str,
    version: RoomVersion,
) -> Result<Vec<u8>, EventIdError> {
    let members = members(content)
        .map_err(|_| EventIdError::Malformed("expected an object for the content".to_owned()))?;
    let mut kept = Vec::new();
    for member in members {
        if event_type == "m.room.member" && member.name == "third_party_invite" {
            kept.extend(redacted_third_party_invite(&member, version)?);
        } else if keeps_content(event_type, &member.name, version) {
            kept.push(member.raw.to_owned());
        }
    }
    Ok(object_of(kept.iter().map(Vec::as_slice)))
}

fn keeps_content(event_type: &str, name: &str, version: RoomVersion) -> bool {
    match (event_type, name) {
        ("m.room.member", "membership") => true,
        ("m.room.member", "join_authorised_via_users_server") => version >= RoomVersion::V9,
        ("m.room.create", _) if version >= RoomVersion::V11 => true,
        ("m.room.create", "creator") => true,
        ("m.room.join_rules", "join_rule") => true,
        ("m.room.join_rules", "allow") => version >= RoomVersion::V8,
        ("m.room.power_levels", "invite") => version >= RoomVersion::V11,
        (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users"
            | "users_default",
        ) => true,
        ("m.room.aliases", "aliases") => version < RoomVersion::V6,
        ("m.room.history_visibility", "history_visibility") => true,
        ("m.room.redaction", "redacts") => version >= RoomVersion::V11,
        _ => false,
    }
}

/// Since version 11 an invite by third party keeps what proves it.
fn redacted_third_party_invite(
    member: &Member<'_>,
    version: RoomVersion,
) -> Result<Option<Vec<u8>>, EventIdError> {
    if version < RoomVersion::V11 || !member.value.starts_with(b"{") {
        return Ok(None);
    }
    let invite = members(member.value)?;
    let signed = invite.iter().filter(|member| member.name == "signed").map(|member| member.raw);
    Ok(Some([br#""third_party_invite":"#, object_of(signed).as_slice()].concat()))
}
