//! `/parked`: mail that is not delivered, shown, tried again or dropped.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::{
    Refusal, RefusalBody, bad_request, conflict, done, not_found, shown, unavailable,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use crate::inbox::{ParkedId, ParkedIdError, Retried};
use crate::store::inbox::parked::{Parked, ParkedMail};

/// Envelopes that are listed unless the operator says otherwise.
const LISTED_DEFAULT: u32 = 200;

/// Envelopes that one list may hold: their reasons take a few hundred bytes each.
const LISTED_MAX: u32 = 10_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    /// Items at most; 200 unless given, and never more than 10000.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Listed {
    id: String,
    #[schema(value_type = String)]
    origin: ServerName,
    txn_id: String,
    seq: Option<u64>,
    state: String,
    reason: Option<String>,
    relay: String,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    arrived_at: Timestamp,
    bytes: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Whole {
    #[serde(flatten)]
    listed: Listed,
    uri: Option<String>,
    authorization: Option<String>,
    /// As it came; text, where it is not JSON.
    content: Content,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Content {
    #[schema(value_type = Object)]
    Json(Box<RawValue>),
    Text(String),
}

/// What is parked, oldest first, and why.
#[utoipa::path(get, path = "/_restante/admin/v1/parked", tag = "parked", params(Options), security(("token" = [])),
    responses((status = 200, body = [Listed])))]
pub(super) async fn list(
    State(state): State<AdminState>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Options { limit }) = options?;
    let limit = limit.unwrap_or(LISTED_DEFAULT).min(LISTED_MAX);
    let parked = state.inbox.parked(limit).await.map_err(unavailable)?;
    let parked: Vec<Listed> = parked.into_iter().map(Into::into).collect();
    Ok(shown(&parked))
}

/// One of them with its content.
#[utoipa::path(get, path = "/_restante/admin/v1/parked/{id}", tag = "parked", params(("id" = String, Path)),
    security(("token" = [])), responses((status = 200, body = Whole), (status = 404, body = RefusalBody)))]
pub(super) async fn show(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    let mail = state.inbox.parked_one(id).await.map_err(unavailable)?;
    let mail = mail.ok_or_else(|| unknown(id))?;
    Ok(shown(&Whole::from(mail)))
}

/// Tries to deliver one of them again.
#[utoipa::path(post, path = "/_restante/admin/v1/parked/{id}/retry", tag = "parked", params(("id" = String, Path)),
    security(("token" = [])),
    responses((status = 200), (status = 404, body = RefusalBody), (status = 409, body = RefusalBody)))]
pub(super) async fn retry(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    match state.inbox.retry_parked(id).await.map_err(unavailable)? {
        Retried::Waits => Ok(shown(&serde_json::json!({ "now": "waits for delivery" }))),
        Retried::IsJudged => Ok(shown(&serde_json::json!({ "now": "is judged again" }))),
        Retried::Refused(reason) => Err(conflict(format!("{id} stays parked: {reason}"))),
        Retried::Unknown => Err(unknown(id)),
    }
}

/// Tries to deliver all of them again.
#[utoipa::path(post, path = "/_restante/admin/v1/parked/retry", tag = "parked", security(("token" = [])),
    responses((status = 200)))]
pub(super) async fn retry_all(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let all = state.inbox.retry_all_parked().await.map_err(unavailable)?;
    let all = serde_json::json!({ "retried": all.retried, "refused": all.refused });
    Ok(shown(&all))
}

/// Drops one of them for good.
#[utoipa::path(delete, path = "/_restante/admin/v1/parked/{id}", tag = "parked", params(("id" = String, Path)),
    security(("token" = [])), responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn drop_one(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    let dropped = state.inbox.drop_parked(id).await.map_err(unavailable)?;
    if dropped { Ok(done()) } else { Err(unknown(id)) }
}

fn parked_id(id: Result<Path<String>, PathRejection>) -> Result<ParkedId, Refusal> {
    let Path(id) = id?;
    id.parse().map_err(|error: ParkedIdError| bad_request(error.to_string()))
}

fn unknown(id: ParkedId) -> Refusal {
    not_found(format!("{id} is not parked; it may have been tried again or dropped"))
}

impl From<Parked> for Listed {
    fn from(parked: Parked) -> Self {
        Self {
            id: ParkedId::from(&parked).to_string(),
            origin: parked.origin,
            txn_id: parked.txn_id,
            seq: parked.seq,
            state: parked.state,
            reason: parked.reason,
            relay: parked.source,
            arrived_at: parked.arrived_at,
            bytes: parked.bytes,
        }
    }
}

impl From<ParkedMail> for Whole {
    fn from(mail: ParkedMail) -> Self {
        let text = || String::from_utf8_lossy(&mail.content).into_owned();
        let json = serde_json::from_slice(&mail.content);
        let content = json.map_or_else(|_| Content::Text(text()), Content::Json);
        let (uri, authorization) = mail.proof.unzip();
        Self { listed: mail.listed.into(), uri, authorization, content }
    }
}
