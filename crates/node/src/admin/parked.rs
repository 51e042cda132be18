//! `/parked`: mail that is not delivered, shown, tried again or dropped.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{AdminState, Refusal, bad_request, done, not_found, shown};
use crate::inbox::{ParkedId, ParkedIdError, Retried};
use crate::store::inbox::parked::{Parked, ParkedMail};

/// Envelopes that are listed unless the operator says otherwise.
const LISTED_DEFAULT: u32 = 200;

/// Envelopes that one list may hold: their reasons take a few hundred bytes each.
const LISTED_MAX: u32 = 10_000;

#[derive(Deserialize)]
pub(super) struct Options {
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Listed {
    id: String,
    origin: ServerName,
    txn_id: String,
    seq: Option<u64>,
    state: String,
    reason: Option<String>,
    relay: String,
    arrived_at: Timestamp,
    bytes: u64,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    listed: Listed,
    uri: Option<String>,
    authorization: Option<String>,
    /// As it came; text, where it is not JSON.
    content: Content,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content {
    Json(Box<RawValue>),
    Text(String),
}

/// `GET /parked[?limit=N]`.
pub(super) async fn list(
    State(state): State<AdminState>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Options { limit }) = options.map_err(|error| bad_request(error.body_text()))?;
    let parked = state.inbox.parked(limit.unwrap_or(LISTED_DEFAULT).min(LISTED_MAX)).await?;
    let parked: Vec<Listed> = parked.into_iter().map(Into::into).collect();
    Ok(shown(&parked))
}

/// `GET /parked/{id}`.
pub(super) async fn show(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    let mail = state.inbox.parked_one(id).await?.ok_or_else(|| unknown(id))?;
    Ok(shown(&Whole::from(mail)))
}

/// `POST /parked/{id}/retry`.
pub(super) async fn retry(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    match state.inbox.retry_parked(id).await? {
        Retried::Waits => Ok(shown(&serde_json::json!({ "now": "waits for delivery" }))),
        Retried::IsJudged => Ok(shown(&serde_json::json!({ "now": "is judged again" }))),
        Retried::Refused(reason) => {
            let text = format!("{id} stays parked: {reason}");
            Err(Refusal(MatrixError::new(StatusCode::CONFLICT, ErrorCode::Unknown, text)))
        }
        Retried::Unknown => Err(unknown(id)),
    }
}

/// `POST /parked/retry`.
pub(super) async fn retry_all(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let all = state.inbox.retry_all_parked().await?;
    let all = serde_json::json!({ "retried": all.retried, "refused": all.refused });
    Ok(shown(&all))
}

/// `DELETE /parked/{id}`.
pub(super) async fn drop_one(
    State(state): State<AdminState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = parked_id(id)?;
    if state.inbox.drop_parked(id).await? { Ok(done()) } else { Err(unknown(id)) }
}

fn parked_id(id: Result<Path<String>, PathRejection>) -> Result<ParkedId, Refusal> {
    let Path(id) = id.map_err(|error| bad_request(error.body_text()))?;
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
