//! Making signed requests.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body::Body as _;
use restante_federation_proto::{RequestTarget, ServerName, SignableRequest, SigningKey};

use crate::body::{Body, empty, full};

/// Who we are: a server name and its signing key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our server name.
    pub server_name: ServerName,
    /// Our key.
    pub key: Arc<SigningKey>,
}

/// A request to `destination`, signed by `identity`. `content` must be canonical JSON; it goes out as it is, with
/// `Content-Type: application/json`, on a GET as well.
pub fn signed_request(
    identity: &Identity,
    method: Method,
    target: &RequestTarget,
    destination: &ServerName,
    content: Option<Bytes>,
) -> Request<Body> {
    let signable = SignableRequest {
        method: method.as_str(),
        target,
        origin: &identity.server_name,
        destination: Some(destination),
        content: content.as_deref(),
    };
    let authorization = HeaderValue::from_str(&signable.sign(&identity.key).to_string())
        .expect("server names, key ids and base64 are printable ASCII");
    let mut request = Request::new(content.map_or_else(empty, full));
    *request.method_mut() = method;
    *request.uri_mut() = uri_of(target);
    request.headers_mut().insert(header::AUTHORIZATION, authorization);
    if !request.body().is_end_stream() {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    request
}

/// A target that HTTP can't carry (64 KiB and more) becomes `/`, which the receiver refuses: the signature is over the
/// target that was meant.
fn uri_of(target: &RequestTarget) -> Uri {
    PathAndQuery::try_from(target.as_str()).map_or_else(|_| Uri::from_static("/"), Uri::from)
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::XMatrix;

    use super::*;
    use crate::body::collect_limited;

    fn identity() -> Identity {
        let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[7; 32]);
        Identity { server_name: "a.example".parse().unwrap(), key: Arc::new(key) }
    }

    #[tokio::test]
    async fn a_signed_request_carries_its_target_and_content_as_they_were_signed() {
        let target: RequestTarget = "/_matrix/federation/v1/send/1%2F%41//..?".parse().unwrap();
        let destination: ServerName = "b.example".parse().unwrap();
        let content = Bytes::from_static(br#"{"pdus":[]}"#);
        let request =
            signed_request(&identity(), Method::PUT, &target, &destination, Some(content.clone()));

        assert_eq!(request.uri().to_string(), target.as_str());
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/json");
        let header = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        let header: XMatrix = header.parse().unwrap();
        assert_eq!(header.destination, Some(destination.clone()));
        SignableRequest {
            method: "PUT",
            target: &target,
            origin: &identity().server_name,
            destination: Some(&destination),
            content: Some(&content),
        }
        .verify(&identity().key.public_key(), &header.signature)
        .unwrap();
        assert_eq!(collect_limited(request.into_body(), 100).await.unwrap(), content);
    }

    #[test]
    fn a_request_without_content_names_no_content_type() {
        let target = "/_matrix/federation/v1/version".parse().unwrap();
        let destination = "b.example".parse().unwrap();
        let request = signed_request(&identity(), Method::GET, &target, &destination, None);
        assert!(!request.headers().contains_key(header::CONTENT_TYPE));
    }
}
