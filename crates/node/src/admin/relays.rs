//! `/relays`: who holds whose mail, shown and changed while the node runs.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation::{BaseUrl, Peer, collect_limited};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use serde::{Deserialize, Serialize};

use super::{AdminState, Refusal, json};
use crate::relay_book::{KnownRelay, RelaySource};

/// Bytes of a request's body: one URL.
const BODY_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
pub(super) struct Filter {
    server: Option<ServerName>,
}

#[derive(Serialize)]
struct RelayEntry {
    server: ServerName,
    server_name: ServerName,
    url: Option<BaseUrl>,
    source: &'static str,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AddBody {
    #[serde(default)]
    url: Option<BaseUrl>,
}

/// `GET /relays[?server=…]`.
pub(super) async fn list(
    State(state): State<AdminState>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Filter { server: wanted }) = filter.map_err(|error| bad(error.body_text()))?;
    let all = state.site.relays.watch().borrow().clone();
    let entries: Vec<RelayEntry> = all
        .into_iter()
        .filter(|(server, _)| wanted.as_ref().is_none_or(|wanted| wanted == server))
        .flat_map(|(server, relays)| relays.into_iter().map(move |relay| entry(&server, relay)))
        .collect();
    let body = serde_json::to_vec(&entries).expect("a list of strings is JSON");
    Ok(json(StatusCode::OK, body))
}

/// `PUT /relays/{server}/{relay}`.
pub(super) async fn add(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names.map_err(bad_name)?;
    let body = collect_limited(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|error| bad(error.to_string()))?;
    let add: AddBody = if body.is_empty() {
        AddBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?
    };
    if add.url.is_none() && relay.public_key().is_some() {
        return Err(bad(format!(
            "{relay} is a key, not a name in the DNS; give its URL with --url"
        )));
    }
    state.site.relays.add(server, Peer { name: relay, url: add.url }).await?;
    Ok(json(StatusCode::OK, b"{}".to_vec()))
}

/// `DELETE /relays/{server}/{relay}`.
pub(super) async fn remove(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names.map_err(bad_name)?;
    if state.site.relays.remove(&server, &relay).await? {
        return Ok(json(StatusCode::OK, b"{}".to_vec()));
    }
    let configured = state.site.relays.of(&server).iter().any(|known| known.peer.name == relay);
    let text = if configured {
        format!("{relay} stands in the configuration file; remove it there and restart the node")
    } else {
        format!("{relay} is not a relay of {server}")
    };
    Err(Refusal(MatrixError::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, text)))
}

fn entry(server: &ServerName, relay: KnownRelay) -> RelayEntry {
    let source = match relay.source {
        RelaySource::Configuration => "configuration",
        RelaySource::Operator => "operator",
    };
    RelayEntry { server: server.clone(), server_name: relay.peer.name, url: relay.peer.url, source }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal(MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text))
}

fn bad_name(rejection: PathRejection) -> Refusal {
    bad(rejection.body_text())
}
