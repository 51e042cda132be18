//! `/relays/join` and `/relays/{relay}/leave`: being served by a relay, and being served no longer.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use restante_operators::{
    Refusal, RefusalBody, bad_request, conflict, json_body, not_found, shown, unavailable,
};
use restante_relay_api::{InviteLine, LeftMail, RegistrationAnswer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AdminState;
use crate::registration::{Left, RegistrationError};

/// Bytes of a request's body: a line of an invitation.
const BODY_BYTES_MAX: usize = 8192;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    /// The line that the relay's operator gave: `restante:RELAY?url=URL&invite=TOKEN`.
    line: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Joined {
    #[schema(value_type = String)]
    relay: ServerName,
    /// What the relay grants: `time_to_live_ms`, `envelopes_max`, `bytes_max`, `origin_envelopes_max`,
    /// `origin_bytes_max`, and as `outgoing`, `null` if it delivers nothing onward, `envelopes_max`, `bytes_max`,
    /// `destination_envelopes_max`, `destination_bytes_max`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    granted: RegistrationAnswer,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaveBody {
    /// `drop`: what the relay holds is dropped at once. `keep`: it is collected first.
    #[schema(value_type = String)]
    mail: LeftMail,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LeftBody {
    /// `left`, or `emptying` while what the relay holds is collected.
    #[schema(value_type = String)]
    state: Left,
}

/// Registers at a relay with an invitation, and collects from it from then on. Takes up to a minute.
#[utoipa::path(post, path = "/_restante/admin/v1/relays/join", tag = "relays", request_body = JoinBody,
    security(("token" = []), ("matrix" = [])),
    responses((status = 200, body = Joined), (status = 400, body = RefusalBody), (status = 409, body = RefusalBody),
        (status = 502, body = RefusalBody)))]
pub(super) async fn join(
    State(state): State<AdminState>,
    request: Request,
) -> Result<Response, Refusal> {
    let JoinBody { line } = json_body(request, BODY_BYTES_MAX).await?;
    let line: InviteLine = line.parse().map_err(|error| bad_request(format!("{error}")))?;
    let granted = state.registrations.join(&line).await.map_err(refusal)?;
    Ok(shown(&Joined { relay: line.relay, granted }))
}

/// Tells a relay that we leave. Takes up to a minute.
#[utoipa::path(post, path = "/_restante/admin/v1/relays/{relay}/leave", tag = "relays",
    params(("relay" = String, Path)), request_body = LeaveBody, security(("token" = []), ("matrix" = [])),
    responses((status = 200, body = LeftBody), (status = 404, body = RefusalBody), (status = 409, body = RefusalBody),
        (status = 502, body = RefusalBody)))]
pub(super) async fn leave(
    State(state): State<AdminState>,
    relay: Result<Path<ServerName>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(relay) = relay?;
    let LeaveBody { mail } = json_body(request, BODY_BYTES_MAX).await?;
    let left = state.registrations.leave(&relay, mail).await.map_err(refusal)?;
    if left == Left::Emptying {
        // The question that waits there began before, and would wait on for half a minute.
        state.inbox.ask_relays_at_once();
    }
    Ok(shown(&LeftBody { state: left }))
}

fn refusal(error: RegistrationError) -> Refusal {
    let text = error.to_string();
    match error {
        RegistrationError::Url(_) | RegistrationError::Nowhere(_) => bad_request(text),
        RegistrationError::NotOurs(_) => not_found(text),
        RegistrationError::Elsewhere { .. }
        | RegistrationError::NotOffered(_)
        | RegistrationError::Refused { .. }
        | RegistrationError::Stays { .. } => conflict(text),
        RegistrationError::Unanswered { .. } | RegistrationError::Untold { .. } => {
            Refusal(MatrixError::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, text))
        }
        RegistrationError::Store(error) => unavailable(error),
    }
}
