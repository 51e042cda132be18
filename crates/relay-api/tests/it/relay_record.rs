use restante_federation_proto::{SigningKey, Timestamp};
use restante_relay_api::{RecordedRelay, RelayRecord, RelayRecordError};

use crate::server;

const DAY: u64 = 24 * 3600 * 1000;

fn key() -> SigningKey {
    SigningKey::from_seed("ed25519:a_1".parse().unwrap(), &[7; 32])
}

fn record() -> RelayRecord {
    let relay = |name, url: Option<&str>| RecordedRelay {
        server_name: server(name),
        url: url.map(str::to_owned),
        priority: 0,
    };
    RelayRecord {
        server_name: server("a.example"),
        relays: vec![relay("r.example", None), relay("s.example", Some("https://s.example:8090"))],
        version: Timestamp::from_millis(DAY),
    }
}

fn verify(json: &[u8], name: &str, now: u64) -> Result<RelayRecord, RelayRecordError> {
    let key = key();
    let pair = (key.id(), &key.public_key());
    RelayRecord::verify(json, &server(name), pair, Timestamp::from_millis(now))
}

#[test]
fn a_record_is_believed_of_its_signer_alone() {
    let json = record().signed(&key());
    assert_eq!(RelayRecord::key_ids(&json, &server("a.example")), [key().id().clone()]);
    assert_eq!(verify(&json, "a.example", DAY), Ok(record()));
    assert_eq!(verify(&json, "b.example", DAY), Err(RelayRecordError::OtherServer));
    let altered = String::from_utf8(json).unwrap().replace("r.example", "x.example");
    assert_eq!(verify(altered.as_bytes(), "a.example", DAY), Err(RelayRecordError::Signature));
}

#[test]
fn a_version_may_lie_a_day_ahead_and_no_more() {
    let json = record().signed(&key());
    assert!(verify(&json, "a.example", 0).is_ok());
    let late = RelayRecord { version: Timestamp::from_millis(DAY + 1), ..record() };
    assert_eq!(verify(&late.signed(&key()), "a.example", 0), Err(RelayRecordError::Ahead));
}

#[test]
fn what_later_versions_add_is_signed_and_kept_out_of_the_way() {
    let mut object: serde_json::Map<_, _> =
        serde_json::from_slice(&record().signed(&key())).unwrap();
    object.remove("signatures");
    object.insert("later".into(), 1.into());
    restante_federation_proto::sign_json(&mut object, &server("a.example"), &key());
    let json = serde_json::to_vec(&object).unwrap();
    assert_eq!(verify(&json, "a.example", DAY), Ok(record()));
}

#[test]
fn a_record_has_16_relays_at_most_and_is_never_large() {
    let mut many = record();
    many.relays = vec![many.relays[0].clone(); 16];
    assert!(verify(&many.signed(&key()), "a.example", DAY).is_ok());
    many.relays.push(many.relays[0].clone());
    assert_eq!(verify(&many.signed(&key()), "a.example", DAY), Err(RelayRecordError::Malformed));
    let mut long = record();
    long.relays[0].url = Some("a".repeat(513));
    assert_eq!(verify(&long.signed(&key()), "a.example", DAY), Err(RelayRecordError::Malformed));
    let padded = [b" ".repeat(16 * 1024), record().signed(&key())].concat();
    assert_eq!(verify(&padded, "a.example", DAY), Err(RelayRecordError::Malformed));
}
