//! `PUT /_matrix/federation/v1/send/{txnId}`: straight to the homeserver, or into the inbox.

use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use restante_federation::{Caller, x_matrix_headers};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use restante_relay_api::endpoints::{SEND, WAYBILL_HEADER};
use restante_relay_api::limits::EXTRAS_BYTES_MAX;
use restante_relay_api::{Content, REQUEST_ID_HEADER, RequestId, Waybill};

use super::{Door, json, pass, receipts, refuse, verified};
use crate::inbox::Arrival;
use crate::inbox::mail::{DIRECT, Mail, Standing, StreamPlace};
use crate::inbox::verification::place;
use crate::relay_records::hearsay::Meeting;
use crate::store::seen::TransactionKey;

/// When a sender may try again whose mail has no room here.
const FULL_RETRY: Duration = Duration::from_secs(300);

/// When a sender may try again whose mail could not be stored.
const STORE_RETRY: Duration = Duration::from_secs(60);

pub(super) async fn send(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = pass::caller(&parts).map(Caller::from);
    let (body, _turn) = match door.transactions.read(body, caller).await {
        Ok(read) => read,
        Err(error) => return refuse(&error),
    };
    parts.uri = pass::target(&parts.uri);
    // Whoever is not named can have nothing in the inbox; the homeserver refuses it.
    let Some(origin) = claimed_origin(&parts.headers) else {
        return pass_on(&door, &parts, body).await.unwrap_or_else(|_| refuse(&unreachable()));
    };
    if let Some(answer) = receipts::take(&door, &parts, &body).await {
        return answer;
    }
    let is_behind_hole = is_behind_hole(&door, &origin, &parts).await;
    if !is_behind_hole && let Some(answer) = pass_straight(&door, &origin, &parts, &body).await {
        return answer;
    }
    match keep(&door, parts.clone(), body.clone()).await {
        Ok(()) => json(StatusCode::OK, r#"{"pdus":{}}"#),
        // Its key can't be had here at the moment, so nobody knows whether anything is missing; refused, it would be
        // taken for offline. The homeserver looks for the key itself.
        Err(error) if is_behind_hole && error.status == StatusCode::SERVICE_UNAVAILABLE => {
            let answer = pass_straight(&door, &origin, &parts, &body).await;
            answer.unwrap_or_else(|| refuse(&error))
        }
        Err(error) => refuse(&error),
    }
}

/// The homeserver's answer; `None` if older mail of `origin` waits here, or nobody answers.
async fn pass_straight(
    door: &Door,
    origin: &ServerName,
    parts: &Parts,
    body: &Bytes,
) -> Option<Response> {
    let _passing = door.inbox.begin_passing(origin, body)?;
    match pass_on(door, parts, body.clone()).await {
        Ok(answer) => {
            let (id, status) = (request_id(&parts.headers), answer.status().as_u16());
            let id = id.as_ref().map(RequestId::as_str);
            tracing::debug!(%origin, delivery.id = id, status, "passed to the homeserver");
            if answer.status() == StatusCode::OK {
                door.site.hearsay.met(origin, Meeting::Called);
                note_place(door, origin, parts, body.clone()).await;
            }
            Some(answer)
        }
        Err(error) => {
            tracing::info!(%origin, "{error}; direct mail goes into the inbox");
            None
        }
    }
}

fn claimed_origin(headers: &HeaderMap) -> Option<ServerName> {
    x_matrix_headers(headers).ok()?.first().map(|header| header.origin.clone())
}

/// Whether earlier mail of the same sender has not come yet. Nothing is verified: at worst the mail goes into the inbox,
/// and there everything is.
async fn is_behind_hole(door: &Door, origin: &ServerName, parts: &Parts) -> bool {
    match waybill(&parts.headers).map(|waybill| Waybill::parse(&waybill)) {
        Some(Ok(waybill)) => door.inbox.is_behind_hole(origin, waybill).await,
        _ => false,
    }
}

/// The homeserver's answer, unless it or what stands before it is not there; then why.
async fn pass_on(door: &Door, parts: &Parts, body: Bytes) -> Result<Response, String> {
    let request = Request::from_parts(parts.clone(), AxumBody::from(body));
    match door.site.homeserver.pass(pass::onward(request, door.front)).await {
        Ok(answer) => match answer.status() {
            status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(format!("the homeserver answered {status}"))
            }
            _ => Ok(pass::back(answer)),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Notes the place of what went straight through, so that nobody waits for it. A failure costs a wait, no mail.
async fn note_place(door: &Door, origin: &ServerName, parts: &Parts, body: Bytes) {
    let Ok(content) = Content::parse(body) else { return };
    if let Err(error) = door.inbox.note_direct(origin, content.raw()).await {
        tracing::error!(%origin, %error, "what came directly can't be remembered");
    }
    let Some(waybill) = waybill(&parts.headers) else { return };
    let Some(txn_id) = txn_id(parts) else { return };
    let place = place(&door.site, Some(&waybill), origin, content.sha256()).await;
    let Some(place) = place else { return };
    let key = TransactionKey { origin: origin.clone(), txn_id, sha256: *content.sha256() };
    if let Err(error) = door.inbox.passed(key, place, content.raw()).await {
        tracing::error!(%origin, %error, "the place of direct mail can't be kept");
    }
}

/// Puts a transaction into the inbox, durably.
async fn keep(door: &Door, parts: Parts, body: Bytes) -> Result<(), MatrixError> {
    let site = &door.site;
    let verified = verified(door, &parts, body).await?;
    let origin = verified.origin.server_name().clone();
    let content = Content::parse(verified.body).map_err(|error| {
        MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::BadJson, error.to_string())
    })?;
    let refused =
        |text: &str| MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text);
    let txn_id = txn_id(&parts).ok_or_else(|| refused("The transaction id can't be read."))?;
    let proof = proof(&parts).ok_or_else(|| refused("The signature can't be kept."))?;
    let waybill = waybill(&parts.headers);
    let place: Option<StreamPlace> = place(site, waybill.as_ref(), &origin, content.sha256()).await;
    let mail = Mail {
        key: TransactionKey { origin, txn_id, sha256: *content.sha256() },
        content: content.raw().clone(),
        proof: Some(proof),
        place,
        extras: Bytes::new(),
        is_entire: false,
        source: DIRECT.to_owned(),
        request_id: request_id(&parts.headers),
        standing: Standing::Waiting,
    };
    let arrivals = door.inbox.arrive(vec![mail]).await.map_err(|error| {
        tracing::error!(%error, "direct mail can't be stored; its sender keeps it");
        unavailable("The mail can't be stored at the moment.").retry_after(STORE_RETRY)
    })?;
    if arrivals.contains(&Arrival::Full) {
        let text = "The inbox for this homeserver is full. Try again later.";
        return Err(unavailable(text).retry_after(FULL_RETRY));
    }
    Ok(())
}

/// The target and the header that were verified. Of several signatures any one will do: the homeserver looks at all
/// that it gets, and gets the first.
fn proof(parts: &Parts) -> Option<(String, String)> {
    let authorization = parts.headers.get_all(header::AUTHORIZATION).iter().find_map(|value| {
        let text = value.to_str().ok()?;
        text.starts_with("X-Matrix").then(|| text.to_owned())
    })?;
    Some((parts.uri.to_string(), authorization))
}

/// The id in the path; the claim of a proof knows how to read it.
fn txn_id(parts: &Parts) -> Option<String> {
    let segment = parts.uri.path().strip_prefix(SEND)?;
    restante_federation_proto::unescape_path_segment(segment)
}

/// The id by which the sender's logs name the delivery; one of another form is none.
fn request_id(headers: &HeaderMap) -> Option<RequestId> {
    headers.get(REQUEST_ID_HEADER)?.to_str().ok()?.parse().ok()
}

fn waybill(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers.get(WAYBILL_HEADER)?.to_str().ok()?;
    let json = Waybill::from_header(value).ok()?;
    (json.len() <= EXTRAS_BYTES_MAX).then(|| json.into())
}

fn unreachable() -> MatrixError {
    let text = "The homeserver can't be reached at the moment.";
    MatrixError::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, text)
}

fn unavailable(text: &str) -> MatrixError {
    MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text)
}
