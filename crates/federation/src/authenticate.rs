//! Who sent a request: X-Matrix checked against the key ring.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use restante_federation_proto::{
    ErrorCode, KeyDocument, MatrixError, RequestTarget, ServerName, SignableRequest, Timestamp,
    XMatrix, XMatrixError, canonicalise,
};

use crate::config::FederationSection;
use crate::key_ring::{Freshness, KeyLookupError, KeyRing};

/// X-Matrix headers of one request that are looked at: servers send one per key that they have, which is one or two.
const HEADERS_MAX: usize = 8;

/// A server whose signature over the request verified. Only [`authenticate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedOrigin {
    server_name: ServerName,
}

impl VerifiedOrigin {
    /// The server.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }
}

/// A request whose sender is known.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Who sent it.
    pub origin: VerifiedOrigin,
    /// Whether the header named its destination; old servers leave it out.
    pub destination_named: bool,
    /// The body as received.
    pub body: Bytes,
}

/// What becomes of a request that does not name its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationRule {
    /// Old servers leave it out: taken.
    Optional,
    /// Refused.
    Required,
}

impl DestinationRule {
    /// As `require_destination` in the configuration says.
    pub fn of(section: &FederationSection) -> Self {
        if section.require_destination { Self::Required } else { Self::Optional }
    }
}

impl Authenticated {
    /// 401 `M_UNAUTHORIZED` if the destination is required and was not named.
    pub fn check_destination(&self, rule: DestinationRule) -> Result<(), MatrixError> {
        if !self.destination_named && rule == DestinationRule::Required {
            return Err(unauthorized("the X-Matrix header must name its destination here"));
        }
        Ok(())
    }
}

/// All X-Matrix headers of a request: at least one, all with the same origin and destination (facts: rule 6).
pub fn x_matrix_headers(headers: &HeaderMap) -> Result<Vec<XMatrix>, MatrixError> {
    let mut found: Vec<XMatrix> = Vec::new();
    for value in headers.get_all(AUTHORIZATION) {
        let Ok(text) = value.to_str() else {
            return Err(unauthorized("the Authorization header is not ASCII"));
        };
        match text.parse::<XMatrix>() {
            Ok(header) => found.push(header),
            Err(XMatrixError::OtherScheme) => {}
            Err(error) => return Err(unauthorized(error.to_string())),
        }
        if found.len() > HEADERS_MAX {
            return Err(unauthorized("too many X-Matrix headers"));
        }
    }
    let Some(first) = found.first() else {
        return Err(unsigned());
    };
    let agree =
        |header: &XMatrix| header.origin == first.origin && header.destination == first.destination;
    if !found.iter().all(agree) {
        return Err(unauthorized("the X-Matrix headers name different origins or destinations"));
    }
    Ok(found)
}

/// Checks that `own_name` is addressed and that one of the signatures verifies with a key of the origin that is valid
/// now. 401 `M_UNAUTHORIZED` for missing or wrong signatures and destinations, 400 for targets that can't be signed and
/// bodies that are not JSON, 503 with `retry_after` when the key can't be had now.
pub async fn authenticate(
    parts: &Parts,
    body: Bytes,
    own_name: &ServerName,
    keys: &KeyRing,
) -> Result<Authenticated, MatrixError> {
    authenticate_with(&x_matrix_headers(&parts.headers)?, parts, body, own_name, keys).await
}

/// The same for whoever has read the headers already.
pub async fn authenticate_with(
    headers: &[XMatrix],
    parts: &Parts,
    body: Bytes,
    own_name: &ServerName,
    keys: &KeyRing,
) -> Result<Authenticated, MatrixError> {
    let claimed = Claimed::of(headers, parts, &body, own_name)?;
    verify(&claimed.signable(), headers, keys).await?;
    let first = claimed.first;
    let origin = VerifiedOrigin { server_name: first.origin.clone() };
    let destination_named = first.destination.is_some();
    Ok(Authenticated { origin, destination_named, body })
}

/// Whether one of the signatures of this request verifies with a key that `document` lists as valid at `now`. It says
/// nothing of whether the document is to be believed: it may have come with the same request.
pub fn is_signed_by_key_of(
    document: &KeyDocument,
    parts: &Parts,
    body: &Bytes,
    own_name: &ServerName,
    now: Timestamp,
) -> bool {
    let Ok(headers) = x_matrix_headers(&parts.headers) else { return false };
    let Ok(claimed) = Claimed::of(&headers, parts, body, own_name) else { return false };
    let signed = claimed.signable();
    document.server_name() == signed.origin
        && headers.iter().any(|header| {
            let key = document.key_valid_at(&header.key_id, now);
            key.is_some_and(|key| signed.verify(key, &header.signature).is_ok())
        })
}

/// A request addressed to this server, as whoever it names would have signed it.
struct Claimed<'a> {
    method: &'a str,
    first: &'a XMatrix,
    target: RequestTarget,
    content: Option<Cow<'a, [u8]>>,
}

impl<'a> Claimed<'a> {
    fn of(
        headers: &'a [XMatrix],
        parts: &'a Parts,
        body: &'a Bytes,
        own_name: &ServerName,
    ) -> Result<Self, MatrixError> {
        let Some(first) = headers.first() else { return Err(unsigned()) };
        if first.destination.as_ref().is_some_and(|destination| destination != own_name) {
            return Err(unauthorized(format!("the request is not for this server, {own_name}")));
        }
        let (target, content) = (target_of(parts)?, content_of(body)?);
        Ok(Self { method: parts.method.as_str(), first, target, content })
    }

    fn signable(&self) -> SignableRequest<'_> {
        SignableRequest {
            method: self.method,
            target: &self.target,
            origin: &self.first.origin,
            destination: self.first.destination.as_ref(),
            content: self.content.as_deref(),
        }
    }
}

fn target_of(parts: &Parts) -> Result<RequestTarget, MatrixError> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    target.parse().map_err(|error: restante_federation_proto::RequestTargetError| {
        MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, error.to_string())
    })
}

/// The body in the form that is signed; an empty one has no content.
fn content_of(body: &Bytes) -> Result<Option<Cow<'_, [u8]>>, MatrixError> {
    if body.is_empty() {
        return Ok(None);
    }
    canonicalise(body).map(Some).map_err(|error| {
        let message = format!("the body is not JSON that can be signed: {error}");
        MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::NotJson, message)
    })
}

/// One good signature is enough. Without one, a key that could not be had decides: it might have been the good one.
async fn verify(
    request: &SignableRequest<'_>,
    headers: &[XMatrix],
    keys: &KeyRing,
) -> Result<(), MatrixError> {
    let mut refusal = unauthorized("the signature does not verify");
    for header in headers {
        match keys.key(&header.origin, &header.key_id, Freshness::ValidNow).await {
            Ok(key) if request.verify(&key, &header.signature).is_ok() => return Ok(()),
            Ok(_) => {}
            Err(KeyLookupError::Unreachable { server, reason, retry_after }) => {
                refusal = not_now(&server, &reason, retry_after);
            }
            Err(error @ KeyLookupError::NoSuchKey { .. }) if refusal.retry_after.is_none() => {
                refusal = unauthorized(error.to_string());
            }
            Err(KeyLookupError::NoSuchKey { .. }) => {}
        }
    }
    Err(refusal)
}

fn unsigned() -> MatrixError {
    unauthorized("the request has no X-Matrix Authorization header")
}

fn unauthorized(message: impl Into<String>) -> MatrixError {
    MatrixError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
}

fn not_now(server: &ServerName, reason: &str, retry_after: Duration) -> MatrixError {
    let message = format!("the keys of {server} can't be checked now: {reason}");
    MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, message)
        .retry_after(retry_after)
}
