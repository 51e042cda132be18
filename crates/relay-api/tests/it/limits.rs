//! Where each limit lies: what is just within it is taken, what is just beyond is not.

use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::Timestamp;
use restante_relay_api::endpoints::{CAPSULE_MEMBER, SEND};
use restante_relay_api::limits::{
    ACKNOWLEDGEMENTS_MAX, AHEAD_MAX, BODY_BYTES_MAX, CAPSULE_BYTES_MAX, COLLECT_BYTES_MAX,
    COLLECT_REQUEST_BYTES_MAX, COLLECT_WAIT_MAX, EXTRAS_BESIDE_CAPSULE_BYTES_MAX, EXTRAS_BYTES_MAX,
    HAVE_MAX, MEMORY_BEYOND_TIME_TO_LIVE, PDU_BYTES_MAX, SIGNED_AT_TOLERANCE, TIME_TO_LIVE,
    TXN_ID_BYTES_MAX, WAYBILL_BYTES_MAX,
};
use restante_relay_api::{
    Capsule, CapsuleError, CollectAcknowledgement, CollectRequest, DepositBody, DepositBodyError,
    MailDigest, Proof, ProofError, Waybill, WaybillError,
};

use crate::{key, server};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// They are a contract with installations of other versions: one that is changed here must be changed knowingly.
#[test]
fn the_limits_are_what_other_installations_count_on() {
    assert_eq!(BODY_BYTES_MAX, 16 * MIB);
    assert_eq!(COLLECT_REQUEST_BYTES_MAX, 256 * KIB);
    assert_eq!(COLLECT_BYTES_MAX, 4 * MIB);
    assert_eq!(CAPSULE_BYTES_MAX, 4 * MIB);
    assert_eq!(EXTRAS_BESIDE_CAPSULE_BYTES_MAX, 128 * KIB);
    assert_eq!(EXTRAS_BYTES_MAX, 4 * MIB + 128 * KIB);
    assert_eq!(PDU_BYTES_MAX, 128 * KIB);
    assert_eq!(WAYBILL_BYTES_MAX, 16 * KIB);
    assert_eq!(TIME_TO_LIVE, Duration::from_hours(30 * 24));
    assert_eq!(MEMORY_BEYOND_TIME_TO_LIVE, Duration::from_hours(7 * 24));
    assert_eq!(AHEAD_MAX, Duration::from_mins(10));
    assert_eq!(COLLECT_WAIT_MAX, Duration::from_secs(50));
    assert_eq!(SIGNED_AT_TOLERANCE, Duration::from_secs(60));
}

#[test]
fn a_collect_with_every_acknowledgement_and_all_from_elsewhere_fits_into_a_request() {
    let acknowledgement = CollectAcknowledgement { id: u64::MAX, sha256: Some("ab".repeat(32)) };
    let request = CollectRequest {
        after: u64::MAX,
        acknowledge: vec![acknowledgement; ACKNOWLEDGEMENTS_MAX],
        have: vec![MailDigest([0xab; 16]); HAVE_MAX],
        limit: u64::MAX,
        max_bytes: u64::MAX,
        wait_ms: u64::MAX,
        heard_until: Some(Timestamp::from_millis(u64::MAX)),
        signed_at: Timestamp::from_millis(u64::MAX),
    };
    assert!(request.to_canonical_json().len() <= COLLECT_REQUEST_BYTES_MAX);
}

#[test]
fn a_capsule_is_read_up_to_its_limit_white_space_included() {
    let shortest = r#"{"pdus":[]}"#;
    let capsule = |bytes: usize| {
        Capsule::parse((shortest.to_owned() + &" ".repeat(bytes - shortest.len())).as_bytes())
    };
    assert!(capsule(CAPSULE_BYTES_MAX).is_ok());
    assert_eq!(capsule(CAPSULE_BYTES_MAX + 1), Err(CapsuleError::TooLarge));
}

#[test]
fn members_of_ours_beside_a_capsule_are_read_up_to_their_limit() {
    let around = r#"{"org.restante.keys":""}"#.len();
    let body = |bytes: usize| {
        let text = "x".repeat(bytes - around);
        DepositBody::parse(format!(r#"{{"org.restante.keys":"{text}"}}"#).into())
    };
    assert!(body(EXTRAS_BESIDE_CAPSULE_BYTES_MAX).is_ok());
    let beyond = body(EXTRAS_BESIDE_CAPSULE_BYTES_MAX + 1);
    assert_eq!(beyond, Err(DepositBodyError::ExtrasTooLarge));
}

/// A name may be written with six bytes for each letter, and with white space behind it.
#[test]
fn the_largest_capsule_fits_however_wastefully_it_is_named() {
    let name: String = CAPSULE_MEMBER.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let largest = format!("\"{}\"", "x".repeat(CAPSULE_BYTES_MAX - 2));
    let deposit = |space: usize| {
        let body = format!(r#"{{"{name}"{}:{largest}}}"#, " ".repeat(space));
        DepositBody::parse(body.into()).map(|body| body.extras.capsule)
    };
    assert_eq!(deposit(5), Ok(Some(Bytes::from(largest.clone()))));
    assert_eq!(deposit(6), Err(DepositBodyError::ExtrasTooLarge));
    assert_eq!(deposit(CAPSULE_BYTES_MAX), Err(DepositBodyError::ExtrasTooLarge));
}

#[test]
fn a_transaction_id_has_a_limit_in_the_bytes_that_it_stands_for() {
    let claimed = |letters: usize| {
        let uri = format!("{SEND}{}", "%C3%BC".repeat(letters / 2) + &"x".repeat(letters % 2));
        let authorization =
            r#"X-Matrix origin=a.example,destination=b.example,key="ed25519:k",sig=""#;
        let authorization = format!("{authorization}{}\"", "A".repeat(86));
        Proof { uri, authorization }.claim().map(|claim| claim.txn_id().len())
    };
    assert_eq!(claimed(TXN_ID_BYTES_MAX), Ok(TXN_ID_BYTES_MAX));
    assert_eq!(claimed(TXN_ID_BYTES_MAX + 1), Err(ProofError::Uri));
    assert_eq!(claimed(TXN_ID_BYTES_MAX + 2), Err(ProofError::Uri));
}

#[test]
fn a_waybill_is_read_up_to_its_limits() {
    let waybill = |stream: usize| Waybill {
        origin: server("a.example"),
        destination: server("b.example"),
        stream: "s".repeat(stream),
        seq: (1 << 53) - 1,
        content_sha256: "ab".repeat(32),
        capsule_sha256: None,
        deposited_at: Timestamp::EPOCH,
    };
    let padded = |bytes: usize| {
        let json = String::from_utf8(waybill(64).signed(&key(1))).unwrap();
        Waybill::parse(format!("{json:bytes$}").as_bytes())
    };
    assert_eq!(padded(WAYBILL_BYTES_MAX), Ok(waybill(64)));
    assert_eq!(padded(WAYBILL_BYTES_MAX + 1), Err(WaybillError::Malformed));
    assert_eq!(padded(WAYBILL_BYTES_MAX * 2), Err(WaybillError::Malformed));
}
