//! All routes of a relay.

use axum::Router;
use axum::middleware;
use axum::routing::{get, post, put};
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError};

use crate::callers::count_request;
use crate::errors::Refusal;
use crate::handlers::{collect, keys, left, mailbox, relay_record, relay_txn, send_relay, version};
use crate::request_log::name_request;
use crate::state::RelayState;

pub(crate) fn router(relay: RelayState) -> Router {
    Router::new()
        .route("/_matrix/federation/v1/send_relay/{txn_id}/{user_id}", put(send_relay::handle))
        .route("/_matrix/federation/v1/relay_txn/{user_id}", get(relay_txn::handle))
        .route("/_matrix/federation/unstable/org.restante/collect", post(collect::handle))
        .route("/_matrix/federation/unstable/org.restante/left", post(left::handle))
        .route(
            "/_matrix/federation/unstable/org.restante/mailbox",
            put(mailbox::register).delete(mailbox::leave),
        )
        .route(
            "/_matrix/federation/unstable/org.restante/relays/{server_name}",
            get(relay_record::handle),
        )
        .route("/_matrix/federation/v1/version", get(version::handle))
        .route("/_matrix/key/v2/server", get(keys::own))
        .route("/_matrix/key/v2/server/{key_id}", get(keys::own))
        .route("/_matrix/key/v2/query", post(keys::query))
        .route("/_matrix/key/v2/query/{server_name}", get(keys::query_one))
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(relay.clone(), count_request))
        .layer(middleware::from_fn_with_state(relay.clone(), name_request))
        .with_state(relay)
}

async fn unknown_endpoint() -> Refusal {
    let text = "This is a relay; it has no such endpoint";
    MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text).into()
}

async fn unknown_method() -> Refusal {
    let text = "This endpoint does not take that method";
    MatrixError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unrecognized, text).into()
}
