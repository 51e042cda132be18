//! `GET /_matrix/federation/unstable/org.restante/relays/{serverName}`: the newest relay record that is known here.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};

use crate::errors::{Refusal, json};
use crate::extract::SignedQuestion;
use crate::state::RelayState;

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    path: Result<Path<String>, PathRejection>,
    _question: SignedQuestion,
) -> Result<Response, Refusal> {
    let Path(server) = path?;
    let server: ServerName = server
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    match relay.admission.registrations.stored(&server).await? {
        Some(registration) => Ok(json(StatusCode::OK, registration.record)),
        None => {
            let text = "No relay record of that server is known here";
            Err(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, text).into())
        }
    }
}
