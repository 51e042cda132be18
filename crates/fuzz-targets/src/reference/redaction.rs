//! What redaction leaves of an event, as the tables of the specification list it, version by version.

use restante_federation_proto::RoomVersion;

use super::{members, object};

/// Top-level members that every version keeps.
const ALWAYS: [&str; 10] = [
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "state_key",
];

/// What the reference hash and the signatures of the event `pdu` cover, if it is one.
pub(crate) fn covered(pdu: &[u8], version: RoomVersion) -> Option<String> {
    let all = members(pdu)?;
    let value = |name: &str| Some(all.iter().find(|(known, _)| known == name)?.1.clone());
    let kind: String = serde_json::from_str(&value("type")?).ok()?;
    let content = redacted_content(&value("content")?, &kind, version)?;
    let before_eleven = |name: &str| ["membership", "origin", "prev_state"].contains(&name);
    let kept = all.into_iter().filter_map(|(name, value)| match name.as_str() {
        "content" => Some((name, content.clone())),
        "type" => Some((name, value)),
        other if ALWAYS.contains(&other) => Some((name, value)),
        other if before_eleven(other) && version < RoomVersion::V11 => Some((name, value)),
        _ => None,
    });
    Some(object(&kept.collect::<Vec<_>>()))
}

fn redacted_content(content: &str, kind: &str, version: RoomVersion) -> Option<String> {
    let all = members(content.as_bytes())?;
    if kind == "m.room.create" && version >= RoomVersion::V11 {
        return Some(object(&all));
    }
    let kept_names = kept_in_content(kind, version);
    let mut kept = Vec::new();
    for (name, value) in all {
        if kept_names.contains(&name.as_str()) {
            kept.push((name, value));
        } else if kind == "m.room.member"
            && name == "third_party_invite"
            && version >= RoomVersion::V11
            && let Some(mut invite) = members(value.as_bytes())
        {
            invite.retain(|(name, _)| name == "signed");
            kept.push((name, object(&invite)));
        }
    }
    Some(object(&kept))
}

fn kept_in_content(kind: &str, version: RoomVersion) -> Vec<&'static str> {
    let number = version as u8 + 1;
    let mut kept: Vec<&str> = match kind {
        "m.room.member" => vec!["membership"],
        "m.room.create" => vec!["creator"],
        "m.room.join_rules" => vec!["join_rule"],
        "m.room.power_levels" => vec![
            "ban",
            "events",
            "events_default",
            "kick",
            "redact",
            "state_default",
            "users",
            "users_default",
        ],
        "m.room.history_visibility" => vec!["history_visibility"],
        _ => vec![],
    };
    // "m.room.aliases" lost its protection in version 6; 8, 9 and 11 each added some.
    let changes: [(&str, u8, u8, &str); 5] = [
        ("m.room.aliases", 1, 5, "aliases"),
        ("m.room.join_rules", 8, 12, "allow"),
        ("m.room.member", 9, 12, "join_authorised_via_users_server"),
        ("m.room.power_levels", 11, 12, "invite"),
        ("m.room.redaction", 11, 12, "redacts"),
    ];
    let in_force = changes
        .into_iter()
        .filter(|(of, from, to, _)| *of == kind && (*from..=*to).contains(&number));
    kept.extend(in_force.map(|(_, _, _, name)| name));
    kept
}
