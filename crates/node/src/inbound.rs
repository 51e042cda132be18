//! The door: other servers' requests enter here, and go straight to the homeserver but for two endpoints.
//!
//! `/send` may have to wait in the inbox, and the own keys are answered here, because the node's document is valid
//! longer than the homeserver's.

mod pass;
mod send;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::{HeaderValue, StatusCode, header};
use restante_federation::{Listener, ServeLimits, x_matrix_headers};
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_relay_api::endpoints::{KEY_SERVER, SEND};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::site::Site;

/// Transactions that are held in memory at once, 16 MiB each at most; further ones wait for their turn.
const TRANSACTIONS_AT_ONCE: usize = 32;

/// Bytes of a body up to which a transaction counts as small; most are.
const SMALL_BYTES: usize = 64 * 1024;

/// Small transactions at once, 128 MiB in all. So many that strangers who are slow, or who make the homeserver look for
/// keys far away, do not keep everybody out.
const SMALL_AT_ONCE: usize = 2048;

/// What stands between other servers and this listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// Nothing: TLS ends here, and what a caller says of forwarding counts nothing.
    Tls,
    /// The operator's proxy, which says for whom it calls.
    Proxy,
}

/// What the handlers share.
#[derive(Clone)]
struct Door {
    site: Site,
    inbox: Inbox,
    front: Front,
    transactions: Turns,
}

/// Whose turn it is to have a transaction in memory.
#[derive(Clone)]
struct Turns {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// Serves other servers until `shutdown`.
pub(crate) async fn serve(
    site: Site,
    listener: Listener,
    front: Front,
    inbox: Inbox,
    shutdown: CancellationToken,
) {
    let router = router(site, front, inbox);
    restante_federation::serve(listener, router, ServeLimits::default(), shutdown).await;
}

fn router(site: Site, front: Front, inbox: Inbox) -> Router {
    let transactions = Turns {
        small: Arc::new(Semaphore::new(SMALL_AT_ONCE)),
        large: Arc::new(Semaphore::new(TRANSACTIONS_AT_ONCE)),
    };
    let door = Door { site, inbox, front, transactions };
    Router::new()
        .route(&format!("{SEND}{{txn_id}}"), put(send::send).fallback(pass))
        .route(KEY_SERVER, get(own_keys).fallback(pass))
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
