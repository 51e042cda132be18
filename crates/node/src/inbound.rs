//! The door: other servers' requests enter here, and go straight to the homeserver but for a few endpoints.
//!
//! `/send` may have to wait in the inbox, or tell the node what became of our mail; the own keys are answered here, because the node's document is valid longer than
//! the homeserver's; and the own relay record is the node's.

mod pass;
mod paths;
mod receipts;
mod record;
mod send;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use restante_federation::{Authenticated, DestinationRule, authenticate, x_matrix_headers};
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_relay_api::endpoints::{KEY_SERVER, RECORD_FILE, RELAYS, SEND};

use crate::inbox::Inbox;
use crate::relay_records::hearsay::Meeting;
use crate::site::Site;

pub(crate) use paths::default_paths;
pub use paths::{PassedPath, PassedPathError};
use turns::Turns;

/// What stands between other servers and this door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// TLS ends here.
    Tls,
    /// Plain HTTP comes here, from the operator's proxy.
    Proxy,
}

/// What the door lets through, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct DoorSettings {
    /// What stands before it.
    pub(crate) front: Front,
    /// Paths that are passed on to the homeserver.
    pub(crate) paths: Vec<PassedPath>,
    /// Of what is verified here; of everything else the homeserver decides.
    pub(crate) destination: DestinationRule,
}

/// What the handlers share.
#[derive(Clone)]
struct Door {
    site: Site,
    inbox: Inbox,
    front: Front,
    paths: Arc<[PassedPath]>,
    destination: DestinationRule,
    transactions: Turns,
}

/// What answers other servers.
pub(crate) fn router(site: Site, settings: DoorSettings, inbox: Inbox) -> Router {
    let DoorSettings { front, paths, destination } = settings;
    let (paths, transactions) = (paths.into(), Turns::new());
    let door = Door { site, inbox, front, paths, destination, transactions };
    Router::new()
        .route(&format!("{SEND}{{txn_id}}"), put(send::send).fallback(pass))
        .route(KEY_SERVER, get(own_keys).fallback(pass))
        .route(RECORD_FILE, get(record::file).fallback(pass))
        .route(&format!("{RELAYS}{{server}}"), get(record::of_server).fallback(pass))
        .fallback(pass)
        .layer(axum::middleware::from_fn_with_state(door.clone(), notice))
        .with_state(door)
}

/// A server that calls is alive; only a hint, as nothing is verified here.
async fn notice(
    State(door): State<Door>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION)
        && let Ok(headers) = x_matrix_headers(request.headers())
        && let Some(first) = headers.first()
    {
        door.site.destinations.sign_of_life(&first.origin);
    }
    next.run(request).await
}

async fn pass(State(door): State<Door>, request: Request) -> Response {
    if !paths::is_passed(request.uri().path(), &door.paths) {
        let text = "This path is not served here.";
        return refuse(&MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text));
    }
    let request = pass::onward(request, door.front);
    match door.site.homeserver.pass(request).await {
        Ok(answer) => pass::back(answer),
        Err(error) => {
            tracing::warn!(%error, "a request could not be passed to the homeserver");
            let text = "The homeserver can't be reached at the moment.";
            refuse(&MatrixError::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, text))
        }
    }
}

/// A request that the node itself takes, once it is known who sent it.
async fn verified(door: &Door, parts: &Parts, body: Bytes) -> Result<Authenticated, MatrixError> {
    let site = &door.site;
    let request = authenticate(parts, body, site.server_name(), &site.keys).await?;
    request.check_destination(door.destination)?;
    site.hearsay.met(request.origin.server_name(), Meeting::Called);
    Ok(request)
}

async fn own_keys(State(door): State<Door>) -> Response {
    json(StatusCode::OK, door.site.own_keys.document().await.raw().clone())
}

fn refuse(error: &MatrixError) -> Response {
    json(error.status, error.to_json())
}

fn json(status: StatusCode, body: impl Into<AxumBody>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body.into()).into_response()
}
