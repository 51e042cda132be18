//! Reads a request of Synapse's federation-worker hook: `PUT matrix-federation://b.test/… HTTP/1.1`.
//!
//! Pure. Whoever knows the secret speaks for the homeserver, and only for the homeserver.

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use restante_federation::Identity;
use restante_federation_proto::{ErrorCode, MatrixError, RequestTarget, ServerName, XMatrix};
use sha2::{Digest, Sha256};

/// The scheme that Synapse writes for its workers.
const SCHEME: &str = "matrix-federation";

/// A request of the homeserver to another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookCall {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// Path and query, byte for byte.
    pub(crate) target: RequestTarget,
    /// The X-Matrix header that is signed with the key in use; another of its keys' when that one is missing.
    pub(crate) authorization: String,
}

/// The `worker_replication_secret`, in a form that is compared in constant time.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    /// The secret as configured.
    pub(crate) fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        let difference = self.0.iter().zip(given).fold(0, |all, (own, given)| all | (own ^ given));
        std::hint::black_box(difference) == 0
    }
}

/// Checks that the homeserver `own` made this request with `secret`, and reads whom it is for.
pub(crate) fn admit(
    parts: &Parts,
    own: &Identity,
    secret: &Secret,
) -> Result<HookCall, MatrixError> {
    let (destination, target) = addressee(&parts.uri)?;
    if !bearer(&parts.headers).is_some_and(|given| secret.is(given)) {
        return Err(forbidden(
            "Proxy-Authorization is missing or wrong: worker_replication_secret in homeserver.yaml must be the same as outbound.secret in node.toml",
        ));
    }
    let authorization = authorization(&parts.headers, own, &destination)?;
    Ok(HookCall { destination, target, authorization })
}

fn addressee(uri: &Uri) -> Result<(ServerName, RequestTarget), MatrixError> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad_request(
            "This is the node's outbound listener for the homeserver's own traffic; other servers call the inbound one. \
             A homeserver comes here by outbound_federation_restricted_to in homeserver.yaml",
        ));
    };
    if scheme != SCHEME {
        return Err(bad_request(format!("{scheme}: is not served here, only {SCHEME}:")));
    }
    let destination = server_name(authority)
        .ok_or_else(|| bad_request(format!("{authority} is not a Matrix server name")))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let target = target.parse().map_err(|error| bad_request(format!("{error}")))?;
    Ok((destination, target))
}

fn server_name(authority: &Authority) -> Option<ServerName> {
    authority.as_str().parse().ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(PROXY_AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| credentials.trim())
}

fn authorization(
    headers: &HeaderMap,
    own: &Identity,
    destination: &ServerName,
) -> Result<String, MatrixError> {
    let mut chosen: Option<(String, XMatrix)> = None;
    for value in headers.get_all(AUTHORIZATION) {
        let Ok(text) = value.to_str() else { continue };
        let Ok(header) = text.parse::<XMatrix>() else { continue };
        if header.origin != own.server_name {
            let text =
                format!("This node sends for {} and not for {}", own.server_name, header.origin);
            return Err(forbidden(text));
        }
        if header.destination.as_ref().is_some_and(|signed| signed != destination) {
            let text =
                format!("The request goes to {destination} and is signed for another server");
            return Err(bad_request(text));
        }
        if chosen.is_none() || header.key_id == *own.key.id() {
            chosen = Some((text.to_owned(), header));
        }
    }
    let missing = || forbidden("The request carries no X-Matrix Authorization of the homeserver");
    chosen.map(|(text, _)| text).ok_or_else(missing)
}

fn forbidden(text: impl Into<String>) -> MatrixError {
    MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text)
}

fn bad_request(text: impl Into<String>) -> MatrixError {
    MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use restante_federation_proto::SigningKey;

    use super::*;

    const SIGNED: &str =
        r#"X-Matrix origin="a.test",key="ed25519:1",sig="AAAA",destination="b.test:8448""#;

    fn own() -> Identity {
        let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[1; 32]);
        Identity { server_name: "a.test".parse().unwrap(), key: Arc::new(key) }
    }

    fn signature() -> String {
        let signature = own().key.sign(b"").to_base64();
        SIGNED.replace("AAAA", &signature)
    }

    fn admitted(uri: &str, headers: &[(&str, &str)]) -> Result<HookCall, MatrixError> {
        let mut request = http::Request::put(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        admit(&request.body(()).unwrap().into_parts().0, &own(), &Secret::new("s3cret"))
    }

    fn refused(uri: &str, headers: &[(&str, &str)]) -> u16 {
        admitted(uri, headers).unwrap_err().status.as_u16()
    }

    const URI: &str = "matrix-federation://b.test:8448/_matrix/federation/v1/send/1%2F?a=%20&b";

    #[test]
    fn a_call_of_the_homeserver_names_its_destination_and_keeps_its_target() {
        let signed = signature();
        let call = admitted(
            URI,
            &[
                ("proxy-authorization", "Bearer s3cret"),
                ("authorization", &signed),
                ("host", "b.test:80"),
            ],
        )
        .unwrap();
        assert_eq!(call.destination.as_str(), "b.test:8448");
        assert_eq!(call.target.as_str(), "/_matrix/federation/v1/send/1%2F?a=%20&b");
        assert_eq!(call.authorization, signed);
    }

    #[test]
    fn the_signature_of_the_key_in_use_is_chosen() {
        let (signed, older) = (signature(), signature().replace("ed25519:1", "ed25519:old"));
        for headers in [[older.as_str(), signed.as_str()], [signed.as_str(), older.as_str()]] {
            let call = admitted(
                URI,
                &[
                    ("proxy-authorization", "Bearer s3cret"),
                    ("authorization", headers[0]),
                    ("authorization", headers[1]),
                ],
            );
            assert_eq!(call.unwrap().authorization, signed);
        }
    }

    #[test]
    fn without_the_secret_nothing_is_passed_on() {
        let signed = signature();
        for secret in ["Bearer wrong", "Bearer", "Basic s3cret", "s3cret", "Bearer s3cret2"] {
            let headers = [("proxy-authorization", secret), ("authorization", signed.as_str())];
            assert_eq!(refused(URI, &headers), 403, "{secret}");
        }
        assert_eq!(refused(URI, &[("authorization", &signed)]), 403);
    }

    #[test]
    fn other_origins_other_destinations_and_unsigned_requests_are_refused() {
        let secret = ("proxy-authorization", "Bearer s3cret");
        let other_origin = signature().replace("a.test", "c.test");
        assert_eq!(refused(URI, &[secret, ("authorization", &other_origin)]), 403);
        let other_destination = signature().replace("b.test", "c.test");
        assert_eq!(refused(URI, &[secret, ("authorization", &other_destination)]), 400);
        assert_eq!(refused(URI, &[secret]), 403);
        assert_eq!(refused(URI, &[secret, ("authorization", "Bearer token")]), 403);
    }

    #[test]
    fn other_forms_and_schemes_get_a_hint() {
        let signed = signature();
        let headers =
            [("proxy-authorization", "Bearer s3cret"), ("authorization", signed.as_str())];
        for uri in [
            "/_matrix/federation/v1/version",
            "http://b.test:8448/x",
            "matrix://b.test:8448/x",
            "matrix-federation://user@b.test:8448/x",
            "matrix-federation://b.test:8448/<script>",
        ] {
            let Ok(_) = uri.parse::<Uri>() else { continue };
            assert_eq!(refused(uri, &headers), 400, "{uri}");
        }
    }
}
