//! The own relay record, for everybody: who can leave mail for us has to know where.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};

use super::{Door, json, refuse};

/// `GET /.well-known/matrix/restante`.
pub(super) async fn file(State(door): State<Door>) -> Response {
    published(&door)
}

/// `GET /_matrix/federation/unstable/org.restante/relays/{serverName}`. A node tells of its own server alone.
pub(super) async fn of_server(
    State(door): State<Door>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Response {
    match server {
        Ok(Path(server)) if server == *door.site.server_name() => published(&door),
        _ => none(),
    }
}

fn published(door: &Door) -> Response {
    match door.site.own_record.published() {
        Some(record) => json(StatusCode::OK, record),
        None => none(),
    }
}

fn none() -> Response {
    let text = "No relay record of that server is known here";
    refuse(&MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, text))
}
