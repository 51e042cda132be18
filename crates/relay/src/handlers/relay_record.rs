//! `GET /_matrix/federation/unstable/org.restante/relays/{serverName}`: the newest relay record that is known here,
//! for whom its server takes mail from.

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
    question: SignedQuestion,
) -> Result<Response, Refusal> {
    let Path(server) = path?;
    let server: ServerName = server
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    let registrations = &relay.admission.registrations;
    let caller = question.caller.server_name();
    // Who is served here is told to nobody who could leave it no mail, in the same words as where nobody is.
    let terms = registrations.terms(&server).await?;
    let may_know = terms.is_some_and(|terms| *caller == server || terms.senders.permit(caller));
    let registration = if may_know { registrations.stored(&server).await? } else { None };
    match registration {
        Some(registration) => Ok(json(StatusCode::OK, registration.record)),
        None => {
            let text = "No relay record of that server is known here";
            Err(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, text).into())
        }
    }
}
