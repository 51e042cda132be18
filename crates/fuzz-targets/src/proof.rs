//! Proofs: a claim says what its text says, and only the content that was signed verifies.

use bytes::Bytes;
use restante_federation_proto::{RequestTarget, SignableRequest, escape_path_segment};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::limits::TXN_ID_BYTES_MAX;
use restante_relay_api::{Content, DepositBody, Proof, ProofClaim};

use crate::reference;
use crate::signer::{Signer, other_key, server, signer};

/// A deposit with a proof, whose signature is checked as it stands and made anew.
pub(crate) fn proof(json: &[u8]) {
    let Ok(body) = DepositBody::parse(Bytes::copy_from_slice(json)) else { return };
    let Some(proof) = &body.extras.proof else { return };
    let written = serde_json::to_vec(proof).expect("two strings are JSON");
    assert_eq!(Proof::parse(&written).as_ref(), Ok(proof));
    let Ok(claim) = proof.claim() else { return };
    assert_claim(proof, &claim);
    let verified = claim.verify(&body.content, &signer().key.public_key()).is_ok();
    assert_eq!(verified, expected(proof, &claim, &body.content));
    assert!(claim.verify(&body.content, &other_key()).is_err());
    assert_signed_anew(&claim, &body.content);
}

fn assert_claim(proof: &Proof, claim: &ProofClaim) {
    assert_eq!(claim.target().as_str(), proof.uri);
    assert!(claim.txn_id().len() <= TXN_ID_BYTES_MAX);
    let segment = proof.uri.strip_prefix(SEND).expect("a claim is of a send");
    assert!(!segment.is_empty() && !segment.contains(['/', '?', '#']));
    // The transaction's way to a relay keeps its id.
    let deposit = send_relay_target(claim.txn_id(), claim.destination());
    let segment = format!("/{}/", escape_path_segment(claim.txn_id()));
    assert!(deposit.as_str().contains(&segment), "{deposit:?}");
}

/// Whether the proof verifies with the signer's key, by the reference's reading.
fn expected(proof: &Proof, claim: &ProofClaim, content: &Content) -> bool {
    let signed = format!(
        r#"{{"content":{},"destination":"{}","method":"PUT","origin":"{}","uri":"{}"}}"#,
        reference::canonical(content.raw()).expect("content has a canonical form"),
        claim.destination(),
        claim.origin(),
        proof.uri,
    );
    let header: restante_federation_proto::XMatrix =
        proof.authorization.parse().expect("a claim has a header");
    let signature = header.signature.to_base64();
    reference::signature::verifies(&signer().key.public_key(), signed.as_bytes(), &signature)
}

fn assert_signed_anew(claim: &ProofClaim, content: &Content) {
    let Signer { key, .. } = signer();
    let target: RequestTarget = claim.target().as_str().parse().expect("it was a target");
    let request = SignableRequest {
        method: "PUT",
        target: &target,
        origin: claim.origin(),
        destination: Some(claim.destination()),
        content: Some(content.canonical()),
    };
    let authorization = request.sign(&key).to_string();
    let proof = Proof { uri: target.as_str().to_owned(), authorization };
    let signed = proof.claim().expect("it was a claim");
    assert!(signed.verify(content, &key.public_key()).is_ok());
    let fits = signed.check_fit(claim.destination(), claim.txn_id(), content);
    assert_eq!(fits.is_ok(), content.origin().is_none_or(|origin| origin == claim.origin()));
    let elsewhere = server("elsewhere.invalid");
    assert!(signed.check_fit(&elsewhere, claim.txn_id(), content).is_err());
    let altered = [b"{\"\x01\":1}".as_slice(), content.raw()].concat();
    assert!(Content::parse(altered.into()).is_err(), "two documents are none");
    let other = Content::parse(Bytes::from_static(b"{\"other\":1}")).expect("a transaction");
    assert!(
        signed.verify(&other, &key.public_key()).is_err() || other.sha256() == content.sha256()
    );
}
