use restante_federation_proto::Timestamp;
use restante_relay_api::{Waybill, WaybillError, hex};

use crate::{key, server};

const HASH: [u8; 32] = [7; 32];

fn waybill() -> Waybill {
    Waybill {
        origin: server("a.example"),
        destination: server("b.example"),
        stream: "s".into(),
        seq: 42,
        content_sha256: hex(&HASH),
        capsule_sha256: None,
        deposited_at: Timestamp::from_millis(1_700_000_000_500),
    }
}

fn verify(
    json: &[u8],
    destination: &str,
    hash: &[u8; 32],
    seed: u8,
) -> Result<Waybill, WaybillError> {
    let signer = key(seed);
    let by = (signer.id(), &signer.public_key());
    Waybill::verify(json, &server("a.example"), &server(destination), hash, by)
}

#[test]
fn a_signed_waybill_is_read_back_through_a_header() {
    let json = waybill().signed(&key(1));
    let header = Waybill::to_header(&json);
    assert_eq!(Waybill::from_header(&header).unwrap(), json);
    assert_eq!(verify(&json, "b.example", &HASH, 1), Ok(waybill()));
    assert_eq!(Waybill::key_ids(&json, &server("a.example")), [key(1).id().clone()]);
    assert_eq!(Waybill::key_ids(&json, &server("c.example")), []);
}

#[test]
fn the_keys_of_a_waybill_are_found_whatever_stands_beside_them() {
    let json = String::from_utf8(waybill().signed(&key(1))).unwrap();
    let json = json.replace(r#"{"ed25519:a_1":"#, r#"{"?":1e999,"rsa:x":[],"ed25519:a_1":"#);
    assert_eq!(verify(json.as_bytes(), "b.example", &HASH, 1), Ok(waybill()));
    assert_eq!(Waybill::key_ids(json.as_bytes(), &server("a.example")), [key(1).id().clone()]);
}

#[test]
fn a_waybill_of_another_transaction_or_key_does_not_count() {
    let json = waybill().signed(&key(1));
    assert_eq!(verify(&json, "c.example", &HASH, 1), Err(WaybillError::OtherTransaction));
    assert_eq!(verify(&json, "b.example", &[8; 32], 1), Err(WaybillError::OtherTransaction));
    assert_eq!(verify(&json, "b.example", &HASH, 2), Err(WaybillError::Signature));
    let changed = String::from_utf8(json).unwrap().replace("\"seq\":42", "\"seq\":43");
    assert_eq!(verify(changed.as_bytes(), "b.example", &HASH, 1), Err(WaybillError::Signature));
}

#[test]
fn numbers_and_names_out_of_bounds_are_malformed() {
    for (seq, stream) in
        [(0, "s".to_owned()), (1 << 53, "s".to_owned()), (1, String::new()), (1, "s".repeat(65))]
    {
        let json = Waybill { seq, stream, ..waybill() }.signed(&key(1));
        assert_eq!(Waybill::parse(&json), Err(WaybillError::Malformed));
    }
    assert_eq!(Waybill::parse(b"{}"), Err(WaybillError::Malformed));
    assert_eq!(Waybill::from_header("not base64!"), Err(WaybillError::Malformed));
}
