//! Makes the call to a destination out of an envelope: the origin's own signed request, byte for byte.
//!
//! Pure.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use restante_federation::{Body, full};
use restante_mailbox::Deposit;
use restante_relay_api::endpoints::WAYBILL_HEADER;
use restante_relay_api::limits::WAYBILL_BYTES_MAX;
use restante_relay_api::{Extras, REQUEST_ID_HEADER, Waybill};

/// The envelope has no proof that could be sent; none is stored so, but one may be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has no proof that can be sent")]
pub(crate) struct NoProof;

/// The request that the origin signed.
pub(crate) fn request(deposit: &Deposit) -> Result<Request<Body>, NoProof> {
    let extras = Extras::parse(deposit.members.clone()).map_err(|_| NoProof)?;
    let proof = extras.proof.as_ref().ok_or(NoProof)?;
    let mut request = Request::new(full(deposit.content.clone()));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = proof.uri.parse::<Uri>().map_err(|_| NoProof)?;
    let header = |text: &str| HeaderValue::from_str(text).map_err(|_| NoProof);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, header(&proof.authorization)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(waybill) = extras.waybill.as_ref().filter(|json| json.len() <= WAYBILL_BYTES_MAX) {
        headers.insert(WAYBILL_HEADER, header(&Waybill::to_header(waybill))?);
    }
    if let Some(id) = extras.request_id() {
        headers.insert(REQUEST_ID_HEADER, header(id.as_str())?);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use restante_federation_proto::Timestamp;
    use restante_mailbox::{ContentHash, Onward};

    use super::*;

    fn deposit(members: &'static str) -> Deposit {
        Deposit {
            recipient: "b.example".parse().unwrap(),
            origin: "a.example".parse().unwrap(),
            txn_id: "1".into(),
            content_hash: ContentHash([0; 32]),
            content: Bytes::from_static(b"{ \"pdus\": [] }"),
            members: members.into(),
            deposited_at: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH,
            onward: Onward::Wanted,
        }
    }

    #[test]
    fn the_request_is_what_the_origin_signed_with_the_waybill_beside_it() {
        let made = request(&deposit(
            r#"{"org.restante.proof":{"uri":"/_matrix/federation/v1/send/1","authorization":"X-Matrix origin=\"a.example\""},"org.restante.waybill":{"seq":1}}"#,
        ));
        let made = made.unwrap();
        assert_eq!(
            (made.method(), made.uri().path()),
            (&Method::PUT, "/_matrix/federation/v1/send/1")
        );
        assert_eq!(made.headers()[AUTHORIZATION], "X-Matrix origin=\"a.example\"");
        let waybill = made.headers()[WAYBILL_HEADER].to_str().unwrap();
        assert_eq!(Waybill::from_header(waybill).unwrap(), br#"{"seq":1}"#);
        assert!(!made.headers().contains_key(REQUEST_ID_HEADER));
    }

    #[test]
    fn what_has_no_proof_is_not_sent() {
        for members in ["", "{}", "nonsense", r#"{"org.restante.waybill":{"seq":1}}"#] {
            assert_eq!(request(&deposit(members)).err(), Some(NoProof), "{members}");
        }
    }
}
