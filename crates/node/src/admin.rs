//! The operator's door: status and commands as JSON over HTTP, behind a token.

mod keys;
mod parked;
mod relays;
mod status;
#[cfg(test)]
mod tests;
mod token;

use std::path::Path;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use restante_federation_proto::{ErrorCode, MatrixError};
use serde::Serialize;

use crate::delivery::Delivery;
use crate::inbox::Inbox;
use crate::retriever::RetrieverStatus;
use crate::site::Site;

pub use token::{Token, TokenError};

/// What the operator's door shows and changes.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) site: Site,
    pub(crate) delivery: Delivery,
    pub(crate) inbox: Inbox,
    pub(crate) retriever: RetrieverStatus,
    pub(crate) token: Token,
}

/// All routes of the operator's door.
pub(crate) fn router(state: AdminState) -> Router {
    Router::new()
        .route("/status", get(status::handle))
        .route("/relays", get(relays::list))
        .route("/relays/{server}/{relay}", put(relays::add).delete(relays::remove))
        .route("/keys", get(keys::list))
        .route("/keys/{server}", get(keys::show).put(keys::trust).delete(keys::forget))
        .route("/parked", get(parked::list))
        .route("/parked/retry", post(parked::retry_all))
        .route("/parked/{id}", get(parked::show).delete(parked::drop_one))
        .route("/parked/{id}/retry", post(parked::retry))
        .route_layer(middleware::from_fn_with_state(state.clone(), authenticate))
        .route("/ready", get(ready))
        .fallback(unknown_endpoint)
        .with_state(state)
}

/// Reads the token beside the node's state, and makes it when there is none.
pub(crate) fn open_token(folder: &Path) -> Result<Token, TokenError> {
    Token::load_or_create(&folder.join("admin-token"))
}

/// Lets those through who hold the token.
async fn authenticate(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|value| value.strip_prefix("Bearer "));
    if bearer.is_some_and(|given| state.token.matches(given)) {
        return next.run(request).await;
    }
    let text = "Send the token from the file admin-token in the node's data folder as Authorization: Bearer";
    Refusal(MatrixError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, text))
        .into_response()
}

async fn ready() -> Response {
    json(StatusCode::OK, b"{\"ready\":true}".to_vec())
}

async fn unknown_endpoint() -> Refusal {
    let text = "The node's admin API has no such endpoint";
    Refusal(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text))
}

/// A refusal on its way to the operator.
struct Refusal(MatrixError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.0.status, self.0.to_json())
    }
}

impl From<restante_sqlite::StoreError> for Refusal {
    fn from(error: restante_sqlite::StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the node's database refused");
        let text = format!("Nothing was changed: {error}");
        Self(MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text))
    }
}

fn bad_request(text: impl Into<String>) -> Refusal {
    Refusal(MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text))
}

fn not_found(text: impl Into<String>) -> Refusal {
    Refusal(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, text))
}

fn done() -> Response {
    json(StatusCode::OK, b"{}".to_vec())
}

/// 200 with the JSON of `body`.
fn shown(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("structs of texts, numbers and JSON are JSON");
    json(StatusCode::OK, body)
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
