//! `PUT` and `DELETE /_matrix/federation/unstable/org.restante/mailbox`: a server asks to be served, or leaves.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use restante_mailbox::StoreError;
use tracing::Instrument as _;

use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, SignedRegistration};
use crate::registering;
use crate::state::RelayState;

/// `PUT`.
pub(crate) async fn register(
    State(relay): State<RelayState>,
    request: SignedRegistration,
) -> Result<Response, Refusal> {
    let state = relay.clone();
    let granted = to_the_end(&relay, async move {
        let SignedRegistration { caller, from, body, .. } = &request;
        registering::register(&state, caller, *from, body).await
    });
    let granted = granted.await?;
    let granted = serde_json::to_vec(&granted).expect("a struct of numbers is JSON");
    Ok(json(StatusCode::OK, granted))
}

/// `DELETE`.
pub(crate) async fn leave(
    State(relay): State<RelayState>,
    request: SignedQuestion,
) -> Result<Response, Refusal> {
    let state = relay.clone();
    let left = async move {
        let SignedQuestion { caller, from, body, .. } = &request;
        registering::leave(&state, caller, *from, body).await
    };
    to_the_end(&relay, left).await?;
    Ok(json(StatusCode::OK, "{}"))
}

/// In a task of its own: a change once begun ends, and what is known of it with it, whether or not the caller hangs up
/// meanwhile.
async fn to_the_end<T: Send + 'static>(
    relay: &RelayState,
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let changing = relay.deposits.spawn(change.in_current_span());
    changing.await.map_err(|error| StoreError::Unavailable(error.into()))?
}
