//! Decides whether an event is as its sender made it
//! (Matrix server-server API, "Calculating the content hash for an event").
//!
//! Pure. An event's id and signature cover its redacted form alone: of an event whose content was altered a homeserver
//! keeps that form for good, and never takes the true event. A proof covers all of it; without one, this hash must.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use restante_federation_proto::{canonicalise, members};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Members that the hash does not cover.
const NOT_COVERED: [&str; 3] = ["hashes", "signatures", "unsigned"];

#[derive(Deserialize)]
struct Hashes {
    sha256: String,
}

/// Whether the event has the content that its hash is of.
pub(super) fn is_whole(pdu: &[u8]) -> bool {
    claimed_hash(pdu).is_some_and(|claimed| content_hash(pdu).is_some_and(|hash| hash == claimed))
}

/// The content hash in unpadded base64; `None` for what has no canonical form.
pub(crate) fn content_hash(pdu: &[u8]) -> Option<String> {
    let canonical = canonicalise(pdu).ok()?;
    let members = members(&canonical).ok()?;
    let covered = members.iter().filter(|member| !NOT_COVERED.contains(&member.name.as_ref()));
    let covered: Vec<&[u8]> = covered.map(|member| member.raw).collect();
    let hash = Sha256::digest([b"{".as_slice(), &covered.join(&b','), b"}"].concat());
    Some(STANDARD_NO_PAD.encode(hash))
}

fn claimed_hash(pdu: &[u8]) -> Option<String> {
    let members = members(pdu).ok()?;
    let hashes = members.iter().find(|member| member.name == "hashes")?;
    let hashes: Hashes = serde_json::from_slice(hashes.value).ok()?;
    Some(hashes.sha256.trim_end_matches('=').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's minimal event ("Event signing" of its cryptographic test vectors).
    const MINIMAL: &str = r#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain",
        "origin_server_ts":1000000,"signatures":{},
        "hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"type":"X","content":{},
        "prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}"#;

    #[test]
    fn the_specifications_event_is_whole_whatever_is_not_covered() {
        assert!(is_whole(MINIMAL.as_bytes()));
        assert!(is_whole(MINIMAL.replace("\"age_ts\":1000000", "").as_bytes()));
    }

    #[test]
    fn an_event_whose_content_was_altered_or_taken_away_is_not_whole() {
        for altered in [
            MINIMAL.replace("\"content\":{}", "\"content\":{\"body\":\"else\"}"),
            MINIMAL.replace("\"origin\":\"domain\",", ""),
            MINIMAL.replace("\"sha256\"", "\"sha1\""),
        ] {
            assert!(!is_whole(altered.as_bytes()), "{altered}");
        }
        assert!(!is_whole(b"[]"));
    }
}
