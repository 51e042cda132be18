//! `/_matrix/key/v2/…`: the relay's own keys, and those of others that it has fetched itself.

use std::collections::BTreeMap;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, KeyId, ServerName, Timestamp};
use restante_relay_api::limits::COLLECT_REQUEST_BYTES_MAX;
use serde::Deserialize;

use crate::errors::{Refusal, json};
use crate::extract::{object, read};
use crate::state::RelayState;

/// `GET /_matrix/key/v2/server`.
pub(crate) async fn own(State(relay): State<RelayState>) -> Response {
    json(StatusCode::OK, relay.own_key.document(relay.clock.now()))
}

/// The body of `POST /_matrix/key/v2/query`.
#[derive(Deserialize)]
struct QueryBody {
    server_keys: BTreeMap<ServerName, BTreeMap<KeyId, Criteria>>,
}

/// From when on the keys must be valid.
#[derive(Deserialize, Default)]
pub(crate) struct Criteria {
    #[serde(default)]
    minimum_valid_until_ts: Option<Timestamp>,
}

/// `POST /_matrix/key/v2/query`.
pub(crate) async fn query(
    State(relay): State<RelayState>,
    request: Request,
) -> Result<Response, Refusal> {
    let (body, _room) = read(&relay, request.into_body(), COLLECT_REQUEST_BYTES_MAX).await?;
    let query: QueryBody = object(&body)?;
    let asked = query.server_keys.into_iter().map(|(server, keys)| {
        let latest =
            keys.into_values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        (server, latest.unwrap_or(Timestamp::EPOCH))
    });
    let asked: Vec<_> = asked.collect();
    notary_answer(&relay, &asked).await
}

/// `GET /_matrix/key/v2/query/{serverName}`.
pub(crate) async fn query_one(
    State(relay): State<RelayState>,
    path: Result<Path<String>, PathRejection>,
    criteria: Result<Query<Criteria>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = path?;
    let server: ServerName = server
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    let bad = |error: QueryRejection| Refusal::bad(ErrorCode::InvalidParam, error.body_text());
    let Query(Criteria { minimum_valid_until_ts: latest }) = criteria.map_err(bad)?;
    let asked = [(server, latest.unwrap_or(Timestamp::EPOCH))];
    notary_answer(&relay, &asked).await
}

async fn notary_answer(
    relay: &RelayState,
    asked: &[(ServerName, Timestamp)],
) -> Result<Response, Refusal> {
    let answer = relay.keys.notary_answer(asked).await;
    Ok(json(StatusCode::OK, relay.answer_memory.hold(answer)?))
}
