//! Event ids and signatures in every room version, against the specification's tables.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use restante_federation_proto::{RoomVersion, canonicalise, verify_event_signature};
use sha2::{Digest, Sha256};

use crate::reference;
use crate::signer::{Signer, other_key, signer};

const VERSIONS: [RoomVersion; 12] = [
    RoomVersion::V1,
    RoomVersion::V2,
    RoomVersion::V3,
    RoomVersion::V4,
    RoomVersion::V5,
    RoomVersion::V6,
    RoomVersion::V7,
    RoomVersion::V8,
    RoomVersion::V9,
    RoomVersion::V10,
    RoomVersion::V11,
    RoomVersion::V12,
];

pub(crate) fn event_id(pdu: &[u8]) {
    let canonical = canonicalise(pdu).ok();
    for version in VERSIONS {
        let id = restante_federation_proto::event_id(pdu, version).ok();
        assert_eq!(id, expected_id(pdu, version), "{version:?}");
        if let Some(canonical) = &canonical {
            let of_canonical = restante_federation_proto::event_id(canonical, version).ok();
            assert_eq!(id, of_canonical, "{version:?}");
        }
    }
}

fn expected_id(pdu: &[u8], version: RoomVersion) -> Option<String> {
    if version <= RoomVersion::V2 {
        let named = reference::members(pdu)?.into_iter().find(|(name, _)| name == "event_id")?;
        let id: String = serde_json::from_str(&named.1).ok()?;
        return (id.starts_with('$') && id.len() <= 255).then_some(id);
    }
    let hash = Sha256::digest(reference::redaction::covered(pdu, version)?);
    let alphabet = if version == RoomVersion::V3 { STANDARD_NO_PAD } else { URL_SAFE_NO_PAD };
    Some(format!("${}", alphabet.encode(hash)))
}

pub(crate) fn event_signature(pdu: &[u8]) {
    let Signer { name, key } = signer();
    let public = key.public_key();
    let signature = reference::signature::carried(pdu, &name, key.id());
    for version in VERSIONS {
        let verified = verify_event_signature(pdu, version, &name, key.id(), &public).is_ok();
        let covered = reference::redaction::covered(pdu, version);
        let expected = covered.zip(signature.as_ref()).is_some_and(|(covered, signature)| {
            reference::signature::verifies(&public, covered.as_bytes(), signature)
        });
        assert_eq!(verified, expected, "{version:?}");
    }
    let by_other = verify_event_signature(pdu, RoomVersion::V11, &name, key.id(), &other_key());
    assert!(by_other.is_err());
}
