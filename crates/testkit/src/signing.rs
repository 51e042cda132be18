//! Signing keys of the servers in a test, and requests signed with them.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use restante_federation_proto::{KeyId, RequestTarget, ServerName, SignableRequest, SigningKey};

/// A random key with the id `ed25519:VERSION`.
pub(crate) fn random_key(version: &str) -> SigningKey {
    let id: KeyId = format!("ed25519:{version}").parse().expect("versions are short words");
    SigningKey::from_seed(id, &rand::random())
}

/// A request of `origin` to `destination` at `url`, signed. `body` is canonical JSON.
pub(crate) fn signed_request(
    method: Method,
    url: &str,
    target: &RequestTarget,
    (origin, key): (&ServerName, &SigningKey),
    destination: &ServerName,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let signable = SignableRequest {
        method: method.as_str(),
        target,
        origin,
        destination: Some(destination),
        content: (!body.is_empty()).then_some(&body),
    };
    let authorization = signable.sign(key).to_string();
    Request::builder()
        .method(method)
        .uri(format!("{url}{}", target.as_str()))
        .header("authorization", authorization)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("the harness builds whole URLs")
}
