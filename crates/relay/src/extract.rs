//! Authenticates by argument type: a handler that takes one of these has a verified caller.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use restante_federation::{
    BodyError, ContentCoding, UnknownCoding, VerifiedOrigin, authenticate_with, collect_limited,
    is_signed_by_key_of, x_matrix_headers,
};
use restante_federation_proto::{ErrorCode, KeyDocument, MatrixError, ServerName, XMatrix};
use restante_mailbox::InviteHash;
use restante_relay_api::limits::{COLLECT_REQUEST_BYTES_MAX, REGISTRATION_BYTES_MAX};
use restante_relay_api::{DepositBody, RegistrationRequest};
use serde::de::DeserializeOwned;

use crate::callers::CameFrom;
use crate::errors::Refusal;
use crate::memory::{CountedBody, NoRoom, Share};
use crate::signed_at;
use crate::state::RelayState;

/// A signed deposit: its caller and its body, up to the operator's limit.
pub(crate) struct SignedDeposit {
    pub(crate) caller: VerifiedOrigin,
    pub(crate) from: CameFrom,
    pub(crate) body: Bytes,
    _room: Share,
}

/// A signed question about a mailbox: its caller and its small body.
pub(crate) struct SignedQuestion {
    pub(crate) caller: VerifiedOrigin,
    pub(crate) from: CameFrom,
    /// How its answer is to be coded.
    pub(crate) wanted: ContentCoding,
    pub(crate) body: Bytes,
    _room: Share,
}

/// A signed registration: its caller and its body.
pub(crate) struct SignedRegistration {
    pub(crate) caller: VerifiedOrigin,
    pub(crate) from: CameFrom,
    pub(crate) body: Bytes,
    _room: Share,
}

impl FromRequest<RelayState> for SignedDeposit {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &RelayState) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let headers = admit(&parts, relay).await?;
        let (body, room) = read(relay, &parts, body, relay.rules().body_bytes_max).await?;
        let caller = match verified((&headers, &parts), body.clone(), relay).await {
            // Its keys have changed since, or the document that lists them ran out, and it brings one that says so.
            Err(refusal)
                if is_about_keys(&refusal) && learn_callers_keys(&parts, &body, relay).await =>
            {
                verified((&headers, &parts), body.clone(), relay).await?
            }
            verified => verified?,
        };
        let from = relay.admission.callers.of(&parts.extensions);
        Ok(Self { caller, from, body, _room: room })
    }
}

impl FromRequest<RelayState> for SignedQuestion {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &RelayState) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let headers = admit(&parts, relay).await?;
        let (body, room) = read(relay, &parts, body, COLLECT_REQUEST_BYTES_MAX).await?;
        let caller = verified((&headers, &parts), body.clone(), relay).await?;
        let from = relay.admission.callers.of(&parts.extensions);
        let wanted = ContentCoding::wanted(&parts.headers);
        Ok(Self { caller, from, wanted, body, _room: room })
    }
}

impl FromRequest<RelayState> for SignedRegistration {
    type Rejection = Refusal;

    async fn from_request(request: Request, relay: &RelayState) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let headers = admit(&parts, relay).await?;
        let (body, room) = read(relay, &parts, body, REGISTRATION_BYTES_MAX).await?;
        let caller = match verified((&headers, &parts), body.clone(), relay).await {
            // A server that can't be reached registers as well: that is what a relay is for.
            Err(refusal) if is_about_keys(&refusal) => {
                if !learn_newcomers_keys(&parts, &body, relay).await? {
                    return Err(refusal);
                }
                verified((&headers, &parts), body.clone(), relay).await?
            }
            verified => verified?,
        };
        let from = relay.admission.callers.of(&parts.extensions);
        Ok(Self { caller, from, body, _room: room })
    }
}

/// What is seen without the body, so that nobody is read or decompressed for nothing; the request's signatures.
async fn admit(parts: &Parts, relay: &RelayState) -> Result<Vec<XMatrix>, Refusal> {
    let headers = x_matrix_headers(&parts.headers)?;
    let from = relay.admission.callers.of(&parts.extensions);
    admit_newcomer(relay, from, &headers[0].origin).await?;
    Ok(headers)
}

async fn verified(
    (headers, parts): (&[XMatrix], &Parts),
    body: Bytes,
    relay: &RelayState,
) -> Result<VerifiedOrigin, Refusal> {
    let rules = relay.rules();
    let request = authenticate_with(headers, parts, body, relay.server_name(), &relay.keys).await?;
    relay.admission.callers.origin(request.origin.server_name(), rules.rates.origin)?;
    request.check_destination(rules.destination)?;
    // Whatever is refused here may have been replayed, and shows nobody's life.
    relay.onward.heard(request.origin.server_name(), &rules.onward);
    Ok(request.origin)
}

/// Whether the signature could not be checked, or not with the keys that are believed; whoever comes too often is refused
/// whatever it brings.
fn is_about_keys(Refusal(error): &Refusal) -> bool {
    matches!(error.status, StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE)
}

/// Bounds look-ups of keys for names that anybody can make up, by where they come from.
pub(crate) async fn admit_newcomer(
    relay: &RelayState,
    from: CameFrom,
    server: &ServerName,
) -> Result<(), Refusal> {
    if relay.keys.knows(server).await {
        return Ok(());
    }
    relay.admission.callers.newcomer(from, relay.rules().rates.newcomers)
}

/// Considers the key document of the caller that a deposit brings; `true` if it changed what is believed. It counts only
/// if a believed key of that server signed it, so the caller need not be known yet.
async fn learn_callers_keys(parts: &Parts, body: &Bytes, relay: &RelayState) -> bool {
    let Ok(headers) = x_matrix_headers(&parts.headers) else { return false };
    let caller = &headers[0].origin;
    // Strangers can't change what is believed of them, and their bodies need not be parsed for it.
    let Some(believed) = relay.keys.believed(caller).await else { return false };
    let brought = DepositBody::parse(body.clone()).ok().and_then(|body| body.extras.keys);
    let Some(document) = brought.and_then(|json| document_of(caller, json)) else { return false };
    document != believed.document && relay.keys.offer(&document).await
}

/// Considers the key document that a registration brings; `true` if it changed what is believed. Without a believed key
/// that signed it, it counts only if the operator has vouched for its server with an invite in that server's name. The
/// request must be signed with one of its keys, and lately: nobody who has merely seen it or the invite plants keys.
async fn learn_newcomers_keys(
    parts: &Parts,
    body: &Bytes,
    relay: &RelayState,
) -> Result<bool, Refusal> {
    let Ok(headers) = x_matrix_headers(&parts.headers) else { return Ok(false) };
    let caller = &headers[0].origin;
    let Ok(request) = object::<RegistrationRequest>(body) else { return Ok(false) };
    let brought = request.keys.map(|keys| Bytes::from(keys.get().to_owned()));
    let document = brought.and_then(|json| document_of(caller, json));
    let (Some(document), now) = (document, relay.clock.now()) else { return Ok(false) };
    if !is_signed_by_key_of(&document, parts, body, relay.server_name(), now) {
        return Ok(false);
    }
    signed_at::check_change(request.signed_at, &relay.started, now)?;
    let believed = relay.keys.believed(caller).await;
    if believed.as_ref().is_some_and(|believed| believed.document == document) {
        return Ok(false);
    }
    if believed.is_some() && relay.keys.offer(&document).await {
        return Ok(true);
    }
    let Some(token) = request.invite else { return Ok(false) };
    let hash = InviteHash::of(token.as_bytes());
    let named = relay.admission.registrations.invite_names(hash, caller, now).await;
    Ok(matches!(named, Ok(true)) && relay.keys.offer_vouched(&document).await)
}

/// The key document of `server`, if that is what `json` is.
pub(crate) fn document_of(server: &ServerName, json: Bytes) -> Option<KeyDocument> {
    KeyDocument::parse(json).ok().filter(|document| document.server_name() == server)
}

/// A body within its own limit and the room that all requests share. It counts until the room is dropped.
pub(crate) async fn read(
    relay: &RelayState,
    parts: &Parts,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Share), Refusal> {
    let coding = ContentCoding::of(&parts.headers).map_err(unknown_coding)?;
    let mut share = relay.request_memory.share(relay.admission.callers.of(&parts.extensions));
    let counted = CountedBody { body, share: &mut share };
    let body = collect_limited(counted, bytes_max).await.map_err(unreadable)?;
    let most = coding.strangers_max(&body, bytes_max);
    let decoded = coding.decode(body, most, |more| Ok(share.grow(more)?));
    let body = decoded.map_err(|error| match error {
        BodyError::TooLarge { max } if max < bytes_max => {
            let text = "The body becomes too long for its coding; send it as it is";
            Refusal::bad(ErrorCode::NotJson, text)
        }
        error => unreadable(error),
    })?;
    Ok((body, share))
}

fn unknown_coding(error: UnknownCoding) -> Refusal {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    MatrixError::new(status, ErrorCode::InvalidParam, error.to_string()).into()
}

/// Reads a body that is a JSON object; serde alone would take a list for a struct.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::bad(ErrorCode::BadJson, "The body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::bad(ErrorCode::BadJson, format!("Not what this endpoint takes: {error}"))
    })
}

fn unreadable(error: BodyError) -> Refusal {
    match error {
        BodyError::TooLarge { max } => {
            let text = format!("The body is larger than the {max} bytes that this relay takes");
            MatrixError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, text).into()
        }
        BodyError::Broken(reason) if reason.is::<NoRoom>() => NoRoom.into(),
        BodyError::Broken(_) => Refusal::bad(ErrorCode::NotJson, "The body broke off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_breaks_off_is_its_senders_fault_and_a_want_of_room_is_not() {
        let broken = unreadable(BodyError::Broken("connection reset".into()));
        assert_eq!(broken.0.status, StatusCode::BAD_REQUEST);
        let no_room = unreadable(BodyError::Broken(NoRoom.into()));
        assert_eq!(no_room.0.status, StatusCode::SERVICE_UNAVAILABLE);
        let too_large = unreadable(BodyError::TooLarge { max: 7 });
        assert_eq!(too_large.0.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
