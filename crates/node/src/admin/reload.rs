//! `POST /reload`: reads the configuration file again.

use axum::extract::State;
use axum::response::Response;
use restante_operators::{Refusal, RefusalBody, ReloadReport, conflict, reload_answer};

use super::AdminState;

/// Reads the configuration file again, applies what can be applied, and names what needs a restart.
#[utoipa::path(post, path = "/_restante/admin/v1/reload", tag = "node", security(("token" = [])),
    responses((status = 200, body = ReloadReport), (status = 400, body = RefusalBody)))]
pub(super) async fn handle(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let reload = state.reload.ok_or_else(|| conflict("This node has no configuration file"))?;
    Ok(reload_answer(&reload.reload().await))
}
