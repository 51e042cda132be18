//! `/_matrix/key/v2/…`: the relay's own keys, and those of others that it has fetched itself.

use std::collections::BTreeMap;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::{Extensions, StatusCode};
use restante_federation::NOTARY_SERVERS_MAX;
use restante_federation_proto::{ErrorCode, KeyId, ServerName, Timestamp};
use restante_relay_api::limits::COLLECT_REQUEST_BYTES_MAX;
use serde::Deserialize;

use crate::callers::CameFrom;
use crate::errors::{Refusal, json};
use crate::extract::{admit_newcomer, object, read};
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
    let from = relay.admission.callers.of(request.extensions());
    let (parts, body) = request.into_parts();
    let (body, _room) = read(&relay, &parts, body, COLLECT_REQUEST_BYTES_MAX).await?;
    let query: QueryBody = object(&body)?;
    let asked = query.server_keys.into_iter().map(|(server, keys)| {
        let latest =
            keys.into_values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        (server, latest.unwrap_or(Timestamp::EPOCH))
    });
    notary_answer(&relay, from, asked.collect()).await
}

/// `GET /_matrix/key/v2/query/{serverName}`.
pub(crate) async fn query_one(
    State(relay): State<RelayState>,
    path: Result<Path<String>, PathRejection>,
    criteria: Result<Query<Criteria>, QueryRejection>,
    extensions: Extensions,
) -> Result<Response, Refusal> {
    let Path(server) = path?;
    let server: ServerName = server
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    let bad = |error: QueryRejection| Refusal::bad(ErrorCode::InvalidParam, error.body_text());
    let Query(Criteria { minimum_valid_until_ts: latest }) = criteria.map_err(bad)?;
    let asked = vec![(server, latest.unwrap_or(Timestamp::EPOCH))];
    notary_answer(&relay, relay.admission.callers.of(&extensions), asked).await
}

/// Nobody signs these questions, and each name that is not known is looked up and remembered: names beyond what an
/// address may bring are left out of the answer, like those that nobody vouches for.
async fn notary_answer(
    relay: &RelayState,
    from: CameFrom,
    asked: Vec<(ServerName, Timestamp)>,
) -> Result<Response, Refusal> {
    let mut admitted = Vec::new();
    for (server, valid_until_min) in asked.into_iter().take(NOTARY_SERVERS_MAX) {
        if admit_newcomer(relay, from, &server).await.is_ok() {
            admitted.push((server, valid_until_min));
        }
    }
    let answer = relay.keys.public_notary_answer(&admitted).await;
    Ok(json(StatusCode::OK, relay.answer_memory.hold(from, answer)?))
}
