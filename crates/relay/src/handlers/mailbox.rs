//! `PUT` and `DELETE /_matrix/federation/unstable/org.restante/mailbox`: a server asks to be served, or leaves.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, SignedRegistration};
use crate::registering;
use crate::state::RelayState;

/// `PUT`.
pub(crate) async fn register(
    State(relay): State<RelayState>,
    request: SignedRegistration,
) -> Result<Response, Refusal> {
    let SignedRegistration { caller, from, body, .. } = &request;
    let granted = registering::register(&relay, caller, *from, body).await?;
    let granted = serde_json::to_vec(&granted).expect("a struct of numbers is JSON");
    Ok(json(StatusCode::OK, granted))
}

/// `DELETE`.
pub(crate) async fn leave(
    State(relay): State<RelayState>,
    request: SignedQuestion,
) -> Result<Response, Refusal> {
    let SignedQuestion { caller, from, body, .. } = &request;
    registering::leave(&relay, caller, *from, body).await?;
    Ok(json(StatusCode::OK, "{}"))
}
