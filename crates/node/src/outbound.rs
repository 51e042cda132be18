//! Where the homeserver's own traffic enters: Synapse's federation-worker hook.
//!
//! Transactions go through delivery, look-ups of keys are answered from what is believed, everything else passes
//! straight through.

mod headers;
mod held;
mod hook;
mod keys;
mod pass_through;
mod patience;
mod purpose;
mod unrelayable;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri};
use restante_federation::{Body, BodyError, collect_limited, full};
use restante_federation_proto::{ErrorCode, MatrixError, RequestTarget};
use restante_relay_api::limits::BODY_BYTES_MAX;

use crate::background::Background;
use crate::delivery::{Delivery, Mail, Outgoing};
use crate::site::Site;
pub(crate) use headers::forwardable;
use hook::{HookCall, Secret};
use keys::KeyLookups;
use pass_through::{offline, pass_question_on, pass_through};
use purpose::{Purpose, purpose};

/// What the outbound door works with.
pub(crate) struct OutboundSettings {
    /// The homeserver's `worker_replication_secret`.
    pub(crate) secret: String,
    /// Where transactions go.
    pub(crate) delivery: Delivery,
    /// Owner of what goes on after an answer.
    pub(crate) background: Background,
}

#[derive(Clone)]
struct Outbound {
    site: Site,
    secret: Secret,
    delivery: Delivery,
    lookups: KeyLookups,
}

/// What answers the homeserver.
pub(crate) fn router(site: Site, settings: OutboundSettings) -> Router {
    let lookups = KeyLookups::new(site.clone(), settings.background);
    let secret = Secret::new(&settings.secret);
    let outbound = Outbound { site, secret, delivery: settings.delivery, lookups };
    // The target of a worker's request is a whole URI: there are no routes to match.
    Router::new().fallback(answer_homeserver).with_state(outbound)
}

async fn answer_homeserver(State(outbound): State<Outbound>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = streamed(body);
    let call = match hook::admit(&parts, &outbound.site.identity, &outbound.secret) {
        Ok(call) => call,
        Err(error) => {
            tracing::warn!(%error, "a request to the outbound listener was refused");
            return refuse(&error);
        }
    };
    match purpose(&parts.method, &call, outbound.site.server_name()) {
        Purpose::Send { txn_id } => outbound.send(call, txn_id, &parts, body).await,
        Purpose::Keys => outbound.lookups.of_server(&call, onward(&call, &parts, body)).await,
        Purpose::Notary => outbound.lookups.as_notary(&call, body).await,
        Purpose::Nothing => {
            let text = "A node answers its own homeserver as a key notary and as nothing else";
            refuse(&MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text))
        }
        Purpose::MissingEvents { room_id } => {
            outbound.missing_events(&call, &parts, body, &room_id).await
        }
        Purpose::Event { event_id } => {
            let site = &outbound.site;
            match pass_question_on(site, &call, onward(&call, &parts, body)).await {
                Some(response) => response,
                None => held::event(site, &call.destination, &event_id)
                    .await
                    .unwrap_or_else(|| offline(&call)),
            }
        }
        Purpose::PassThrough => {
            pass_through(&outbound.site, &call, onward(&call, &parts, body)).await
        }
    }
}

impl Outbound {
    async fn send(&self, call: HookCall, txn_id: String, parts: &Parts, body: Body) -> Response {
        let body = match collect_limited(body, BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => return refuse(&unreadable(&error)),
        };
        let outgoing = Outgoing {
            destination: call.destination.clone(),
            txn_id,
            target: call.target.clone(),
            headers: forwardable(&parts.headers),
            authorization: call.authorization.clone(),
            body: body.clone(),
        };
        match Mail::read(outgoing, &self.site.identity) {
            Ok(mail) => self.delivery.send(mail).await,
            Err(error) => {
                // No relay would take it; the destination itself may be of another mind.
                tracing::warn!(destination = %call.destination, %error, "passed through: not a transaction");
                pass_through(&self.site, &call, onward(&call, parts, full(body))).await
            }
        }
    }

    /// The question goes on as long as its destination answers; else it is answered from what is held.
    async fn missing_events(
        &self,
        call: &HookCall,
        parts: &Parts,
        body: Body,
        room_id: &str,
    ) -> Response {
        let question = match collect_limited(body, held::QUESTION_BYTES_MAX).await {
            Ok(question) => question,
            Err(error) => return refuse(&unreadable(&error)),
        };
        let request = onward(call, parts, full(question.clone()));
        if let Some(response) = pass_question_on(&self.site, call, request).await {
            return response;
        }
        let gap = held::missing_events(&self.site, room_id, &question).await;
        gap.unwrap_or_else(|| offline(call))
    }
}

/// The homeserver's request, ready for its destination.
fn onward(call: &HookCall, parts: &Parts, body: Body) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri_of(&call.target);
    *request.headers_mut() = forwardable(&parts.headers);
    request
}

/// The target alone, byte for byte. It came in a URI, so that it always fits into one.
pub(crate) fn uri_of(target: &RequestTarget) -> Uri {
    PathAndQuery::try_from(target.as_str()).map_or_else(|_| Uri::from_static("/"), Uri::from)
}

fn streamed(body: axum::body::Body) -> Body {
    use http_body_util::BodyExt as _;
    body.map_err(Into::into).boxed_unsync()
}

fn unreadable(error: &BodyError) -> MatrixError {
    match error {
        BodyError::TooLarge { .. } => {
            MatrixError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, error.to_string())
        }
        BodyError::Broken(_) => {
            MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::NotJson, error.to_string())
        }
    }
}

/// A refusal on its way to the homeserver.
pub(crate) fn refuse(error: &MatrixError) -> Response {
    json_response(error.status, error.to_json())
}

/// An answer in JSON.
pub(crate) fn json_response(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;
