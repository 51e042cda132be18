//! Passes a call of the homeserver on to its destination, streaming both ways.

use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use restante_federation::{Answer, Body, Outcome, Patience, Peer, collect_limited, outcome};

use super::headers::forwardable;
use super::hook::HookCall;
use super::patience::patience;
use super::unrelayable::{StandIn, stand_in};
use crate::answer;
use crate::destinations::Admission;
use crate::relay_records::hearsay::Meeting;
use crate::site::Site;

/// Bytes of an error that is read before it is passed on.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Passes `request` on, or answers in the place of a destination that is offline.
pub(super) async fn pass_through(site: &Site, call: &HookCall, request: Request<Body>) -> Response {
    let admission = site.destinations.admit(&call.destination);
    pass_on(site, call, request, admission).await.unwrap_or_else(|| offline(call))
}

/// Passes a question about events on; `None` when the destination is offline.
pub(super) async fn pass_question_on(
    site: &Site,
    call: &HookCall,
    request: Request<Body>,
) -> Option<Response> {
    let admission = site.destinations.admit_question(&call.destination);
    pass_on(site, call, request, admission).await
}

async fn pass_on(
    site: &Site,
    call: &HookCall,
    request: Request<Body>,
    admission: Admission,
) -> Option<Response> {
    let destination = &call.destination;
    let patience = patience_now(site, call, admission)?;
    let peer = Peer::from(destination.clone());
    match site.exchange.exchange(&peer, request, patience).await {
        Ok(response) if speaks_for_a_gateway(response.status()) => {
            judge_error(site, call, response).await
        }
        Ok(response) => {
            if shows_life(&response) {
                site.destinations.answered(destination).await;
                site.hearsay.met(destination, Meeting::Answered);
            }
            Some(streamed(response))
        }
        Err(error) => {
            tracing::info!(%destination, target = call.target.as_str(), error = &error as &dyn std::error::Error, "not answered");
            site.destinations.failed(destination).await;
            None
        }
    }
}

/// How long the call may take now; `None` when the destination is not to be called.
fn patience_now(site: &Site, call: &HookCall, admission: Admission) -> Option<Patience> {
    let ordinary = patience(call.target.as_str());
    match admission {
        Admission::Attempt => Some(ordinary),
        Admission::Probe => {
            let connect = ordinary.connect.min(site.destinations.probe_connect());
            Some(Patience { connect, ..ordinary })
        }
        Admission::Offline => None,
    }
}

/// The answer in the place of a destination that is offline, by the kind of the question.
pub(super) fn offline(call: &HookCall) -> Response {
    let StandIn { status, body } = stand_in(call.target.as_str(), &call.destination);
    super::json_response(status, body)
}

/// These may come from a proxy before a homeserver that is down.
fn speaks_for_a_gateway(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// What a gateway says of itself means that the homeserver behind it is offline. A homeserver's own word that it is too busy goes
/// back as it is; the other two are never a homeserver's own, and a node that stands before one words them as a homeserver would.
async fn judge_error(
    site: &Site,
    call: &HookCall,
    response: http::Response<Body>,
) -> Option<Response> {
    let (head, body) = response.into_parts();
    let body = collect_limited(body, ERROR_BYTES_MAX).await.unwrap_or_default();
    let answer = Answer { status: head.status, headers: head.headers, body };
    if answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.refusal().errcode.is_some() {
        return Some(answer::for_homeserver(answer));
    }
    tracing::info!(destination = %call.destination, answer = answer.summary(), "its homeserver is down");
    site.destinations.failed(&call.destination).await;
    None
}

/// Any page may stand where a homeserver once was; JSON, or success, is its own.
fn shows_life(response: &http::Response<Body>) -> bool {
    let json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    match outcome(response.status(), &Default::default(), None) {
        Outcome::Delivered => true,
        Outcome::Busy { .. } | Outcome::Permanent => json,
        Outcome::Temporary => json && response.status() == StatusCode::NOT_FOUND,
    }
}

fn streamed(response: http::Response<Body>) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers = forwardable(&head.headers);
    head.extensions.clear();
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, axum::body::Body::new(body))
}
