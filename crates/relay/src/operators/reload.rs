//! `POST /reload`: reads the configuration file again.

use axum::extract::State;
use axum::response::Response;
use restante_operators::{Refusal, RefusalBody, ReloadReport, conflict, reload_answer};

use super::OperatorsState;

/// Reads the configuration file and the certificate files again, applies what can be applied, and names what needs a restart.
#[utoipa::path(post, path = "/_restante/admin/v1/reload", tag = "relay", security(("token" = [])),
    responses((status = 200, body = ReloadReport), (status = 400, body = RefusalBody)))]
pub(super) async fn handle(State(state): State<OperatorsState>) -> Result<Response, Refusal> {
    let reload = state.reload.ok_or_else(|| conflict("This relay has no configuration to read"))?;
    Ok(reload_answer(&reload.reload().await))
}
