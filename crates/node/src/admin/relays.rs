//! `/relays`: who holds whose mail, shown and changed while the node runs.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use restante_federation::{BaseUrl, Peer};
use restante_federation_proto::ServerName;
use restante_operators::{
    Refusal, RefusalBody, bad_request, done, json_body, not_found, shown, unavailable,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use crate::relay_book::{KnownRelay, RelaySource};

/// Bytes of a request's body: one URL.
const BODY_BYTES_MAX: usize = 4096;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Whose relays; all when absent.
    #[param(value_type = Option<String>)]
    server: Option<ServerName>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RelayEntry {
    /// Whose mail it holds.
    #[schema(value_type = String)]
    server: ServerName,
    #[schema(value_type = String)]
    server_name: ServerName,
    #[schema(value_type = Option<String>)]
    url: Option<BaseUrl>,
    /// `configuration` or `operator`.
    source: &'static str,
}

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddBody {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    url: Option<BaseUrl>,
}

/// Which relays hold whose mail.
#[utoipa::path(get, path = "/_restante/admin/v1/relays", tag = "relays", params(Filter), security(("token" = [])),
    responses((status = 200, body = [RelayEntry])))]
pub(super) async fn list(
    State(state): State<AdminState>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Filter { server: wanted }) = filter?;
    let all = state.site.relays.watch().borrow().clone();
    let entries: Vec<RelayEntry> = all
        .into_iter()
        .filter(|(server, _)| wanted.as_ref().is_none_or(|wanted| wanted == server))
        .flat_map(|(server, relays)| relays.into_iter().map(move |relay| entry(&server, relay)))
        .collect();
    Ok(shown(&entries))
}

/// Names a relay that holds a server's mail; takes effect at once.
#[utoipa::path(put, path = "/_restante/admin/v1/relays/{server}/{relay}", tag = "relays",
    params(("server" = String, Path, description = "Whose mail it holds"), ("relay" = String, Path)),
    request_body = AddBody, security(("token" = [])),
    responses((status = 200), (status = 400, body = RefusalBody)))]
pub(super) async fn add(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names?;
    let add: AddBody = json_body(request, BODY_BYTES_MAX).await?;
    if add.url.is_none() && relay.public_key().is_some() {
        return Err(bad_request(format!(
            "{relay} is a key, not a name in the DNS; give its URL with --url"
        )));
    }
    let peer = Peer::new(relay, add.url);
    state.site.relays.add(server, peer).await.map_err(unavailable)?;
    Ok(done())
}

/// Takes back what was named here; takes effect at once.
#[utoipa::path(delete, path = "/_restante/admin/v1/relays/{server}/{relay}", tag = "relays",
    params(("server" = String, Path), ("relay" = String, Path)), security(("token" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn remove(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names?;
    if state.site.relays.remove(&server, &relay).await.map_err(unavailable)? {
        return Ok(done());
    }
    let configured = state.site.relays.of(&server).iter().any(|known| known.peer.name == relay);
    let text = if configured {
        format!("{relay} stands in the configuration file; remove it there and reload")
    } else {
        format!("{relay} is not a relay of {server}")
    };
    Err(not_found(text))
}

fn entry(server: &ServerName, relay: KnownRelay) -> RelayEntry {
    let source = match relay.source {
        RelaySource::Configuration => "configuration",
        RelaySource::Operator => "operator",
    };
    RelayEntry { server: server.clone(), server_name: relay.peer.name, url: relay.peer.url, source }
}
