//! Event ids against recorded vectors: `vectors/event-ids.json`, PDUs of every kind and room version with
//! the ids that Synapse 1.163 computes.

use proptest::prelude::*;
use restante_federation_proto::{EventIdError, RoomVersion, event_id};
use serde::Deserialize;

use crate::generated_json::document;

#[derive(Deserialize)]
struct Vector {
    room_version: String,
    case: String,
    pdu: String,
    event_id: String,
}

#[test]
fn event_ids_are_those_that_synapse_computes() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../vectors/event-ids.json")).unwrap();
    let wrong: Vec<String> = vectors
        .iter()
        .filter(|vector| {
            let version = vector.room_version.parse().unwrap();
            event_id(vector.pdu.as_bytes(), version).as_ref() != Ok(&vector.event_id)
        })
        .map(|vector| format!("{} in version {}", vector.case, vector.room_version))
        .collect();
    assert!(wrong.is_empty(), "of {}: {wrong:#?}", vectors.len());
}

#[test]
fn every_room_version_from_1_to_12_is_known_and_no_other() {
    for number in 1..=12 {
        assert!(number.to_string().parse::<RoomVersion>().is_ok());
    }
    for version in ["", "0", "13", "01", "1 ", "org.matrix.msc9999"] {
        let error = version.parse::<RoomVersion>();
        assert_eq!(error, Err(EventIdError::UnknownVersion(version.to_owned())));
    }
}

#[test]
fn a_pdu_without_the_members_that_every_pdu_has_is_refused() {
    for pdu in [
        "",
        "[]",
        "{}",
        r#"{"type":"m"}"#,
        r#"{"content":{}}"#,
        r#"{"type":1,"content":{}}"#,
        r#"{"type":"m","content":[]}"#,
        r#"{"type":"m","type":"n","content":{}}"#,
    ] {
        let id = event_id(pdu.as_bytes(), RoomVersion::V11);
        assert!(matches!(id, Err(EventIdError::Malformed(_))), "{pdu}: {id:?}");
    }
    for pdu in ["{}", r#"{"event_id":1}"#, r#"{"event_id":"x"}"#] {
        let id = event_id(pdu.as_bytes(), RoomVersion::V1);
        assert!(matches!(id, Err(EventIdError::Malformed(_))), "{pdu}: {id:?}");
    }
}

proptest! {
    #[test]
    fn no_document_makes_event_ids_panic(content in document(), bytes in any::<Vec<u8>>()) {
        let pdu = serde_json::json!({ "type": "m.room.member", "content": content }).to_string();
        for version in [RoomVersion::V1, RoomVersion::V3, RoomVersion::V12] {
            let id = event_id(pdu.as_bytes(), version);
            prop_assert_eq!(id.is_ok(), content.is_object() && version > RoomVersion::V2);
            let _ = event_id(&bytes, version);
        }
    }
}
