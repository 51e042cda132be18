use bytes::Bytes;
use restante_federation_proto::{RequestTarget, SignableRequest};
use restante_relay_api::{Content, Proof, ProofError};

use crate::{key, server};

fn content() -> Content {
    Content::parse(Bytes::from_static(br#"{"edus":[],"origin":"a.example","pdus":[]}"#)).unwrap()
}

fn proof(uri: &str) -> Proof {
    let target: RequestTarget = uri.parse().unwrap();
    let content = content();
    let signable = SignableRequest {
        method: "PUT",
        target: &target,
        origin: &server("a.example"),
        destination: Some(&server("b.example")),
        content: Some(content.canonical()),
    };
    Proof { uri: uri.into(), authorization: signable.sign(&key(1)).to_string() }
}

#[test]
fn a_good_proof_tells_who_sent_what_to_whom_and_verifies() {
    let claim = proof("/_matrix/federation/v1/send/t%2F1").claim().unwrap();
    assert_eq!(claim.origin(), &server("a.example"));
    assert_eq!(claim.destination(), &server("b.example"));
    assert_eq!(claim.txn_id(), "t/1");
    claim.check_fit(&server("b.example"), "t/1", &content()).unwrap();
    claim.verify(&content(), &key(1).public_key()).unwrap();
    assert_eq!(claim.verify(&content(), &key(2).public_key()), Err(ProofError::Signature));
}

#[test]
fn other_uris_are_no_proof() {
    for uri in [
        "/_matrix/federation/v1/send/",
        "/_matrix/federation/v1/send/t?",
        "/_matrix/federation/v1/send/t?a=b",
        "/_matrix/federation/v1/send/t/u",
        "/_matrix/federation/v1/send/%ff",
        "/_matrix/federation/v1/send/%4",
        "/_matrix/federation/v2/send/t",
        "//_matrix/federation/v1/send/t",
        "/_matrix/federation/v1/SEND/t",
    ] {
        assert_eq!(proof(uri).claim(), Err(ProofError::Uri), "{uri}");
    }
    let unsignable = Proof {
        uri: "/_matrix/federation/v1/send/\"".into(),
        ..proof("/_matrix/federation/v1/send/t")
    };
    assert_eq!(unsignable.claim(), Err(ProofError::Uri));
}

#[test]
fn a_proof_must_name_its_destination() {
    let mut proof = proof("/_matrix/federation/v1/send/t");
    let (without, _) = proof.authorization.split_once(",destination").unwrap();
    proof.authorization = without.to_owned();
    assert_eq!(proof.claim(), Err(ProofError::NoDestination));
    proof.authorization = "Bearer x".into();
    assert!(matches!(proof.claim(), Err(ProofError::Authorization(_))));
}

#[test]
fn a_proof_fits_one_mailbox_one_id_and_one_origin() {
    let claim = proof("/_matrix/federation/v1/send/t").claim().unwrap();
    let (a, b) = (server("a.example"), server("b.example"));
    assert_eq!(claim.check_fit(&a, "t", &content()), Err(ProofError::OtherDestination(b.clone())));
    assert_eq!(claim.check_fit(&b, "u", &content()), Err(ProofError::OtherTransaction));
    let other = Content::parse(Bytes::from_static(br#"{"origin":"c.example"}"#)).unwrap();
    assert_eq!(claim.check_fit(&b, "t", &other), Err(ProofError::OtherOrigin));
}
