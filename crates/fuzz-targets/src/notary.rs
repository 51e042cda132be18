//! A notary's answer: only documents that hold by themselves come out of it, and they survive being passed on.

use bytes::Bytes;
use restante_federation_proto::{NOTARY_DOCUMENTS_MAX, NotaryResponse};

use crate::key_documents::assert_self_signed;

pub(crate) fn notary_response(json: &[u8]) {
    let Ok(response) = NotaryResponse::parse(json) else { return };
    assert!(response.server_keys.len() <= NOTARY_DOCUMENTS_MAX);
    response.server_keys.iter().for_each(assert_self_signed);
    let documents: Vec<Bytes> =
        response.server_keys.iter().map(|document| document.raw().clone()).collect();
    let passed_on = NotaryResponse::parse(&NotaryResponse::to_json(&documents));
    assert_eq!(passed_on.map(|response| response.server_keys), Ok(response.server_keys));
}
