//! `/relays`: who holds whose mail, shown and changed while the node runs.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use restante_federation::{BaseUrl, Peer};
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::{
    Refusal, RefusalBody, bad_request, done, json_body, not_found, shown, unavailable,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use crate::relay_book::{KnownRelay, RelaySource, RelaysByServer};
use crate::relay_records::Recorded;
use crate::store::trust::{self, Distrusted};

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
    url: Option<String>,
    /// `configuration`, `operator`, or `record`: the server's own relay record.
    source: &'static str,
    /// Whether mail is left there. A record counts for nothing where the operator has named relays.
    in_force: bool,
    /// Whether it delivers this server's own mail onward.
    outgoing: bool,
    /// Since when its word does not count as sent, because it lost mail again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    distrusted_since: Option<Timestamp>,
    #[serde(flatten)]
    record: Option<OfRecord>,
}

/// What a relay record says, and where it came from.
#[derive(Serialize, ToSchema)]
struct OfRecord {
    /// Lower is preferred, where not all of many relays are used.
    priority: u32,
    /// `well-known` (the server's web site), `server` (its node), `mail`, or `relay` and the relay's name.
    learned_from: String,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    learned_at: Timestamp,
    /// When the server made the record, milliseconds since 1970.
    #[schema(value_type = u64)]
    version: Timestamp,
}

/// Records that are shown beside what the operator named, those learned last: a few thousand lines at most.
const RECORDS_SHOWN_MAX: u32 = 1000;

#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddBody {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    url: Option<BaseUrl>,
}

/// Which relays hold whose mail: all that the operator named, and those of the 1,000 relay records that were learned last.
#[utoipa::path(get, path = "/_restante/admin/v1/relays", tag = "relays", params(Filter), security(("token" = []), ("matrix" = [])),
    responses((status = 200, body = [RelayEntry])))]
pub(super) async fn list(
    State(state): State<AdminState>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(Filter { server: wanted }) = filter?;
    let book = &state.site.relays;
    let records = match &wanted {
        Some(server) => book.record_of(server).await.map(|known| known.into_iter().collect()),
        None => book.records(RECORDS_SHOWN_MAX).await,
    };
    let records: Vec<Recorded> = records.map_err(unavailable)?;
    let (named, outgoing) = (book.watch().borrow().clone(), book.outgoing());
    let mut entries: Vec<RelayEntry> =
        records.iter().flat_map(|recorded| of_record(recorded, &named)).collect();
    let is_wanted = |server: &ServerName| wanted.as_ref().is_none_or(|wanted| wanted == server);
    for (server, relays) in named.into_iter().filter(|(server, _)| is_wanted(server)) {
        let is_outgoing = |relay: &KnownRelay| {
            server == state.site.identity.server_name && outgoing.contains(&relay.peer)
        };
        entries.extend(relays.into_iter().map(|relay| {
            let outgoing = is_outgoing(&relay);
            RelayEntry { outgoing, ..entry(&server, relay) }
        }));
    }
    for Distrusted { destination, relay, since, .. } in
        trust::all(&state.site.database).await.map_err(unavailable)?
    {
        let of_it =
            |entry: &&mut RelayEntry| entry.server == destination && entry.server_name == relay;
        entries.iter_mut().filter(of_it).for_each(|entry| entry.distrusted_since = Some(since));
    }
    // Within one server the order stays: those come first that the server prefers.
    entries
        .sort_by(|one, other| (&one.server, !one.in_force).cmp(&(&other.server, !other.in_force)));
    Ok(shown(&entries))
}

/// Names a relay that holds a server's mail; takes effect at once.
#[utoipa::path(put, path = "/_restante/admin/v1/relays/{server}/{relay}", tag = "relays",
    params(("server" = String, Path, description = "Whose mail it holds"), ("relay" = String, Path)),
    request_body = AddBody, security(("token" = []), ("matrix" = [])),
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
    params(("server" = String, Path), ("relay" = String, Path)), security(("token" = []), ("matrix" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn remove(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names?;
    if state.site.relays.remove(&server, &relay).await.map_err(unavailable)? {
        return Ok(done());
    }
    let names = |relays: &[Peer]| relays.iter().any(|known| known.name == relay);
    let holding = state.site.relays.holding(&server).await.map_err(unavailable)?;
    let text = match (names(&holding), state.site.relays.is_named(&server)) {
        (true, true) => {
            format!("{relay} stands in the configuration file; remove it there and reload")
        }
        (true, false) => format!(
            "{server} itself names {relay} in its relay record; to leave its mail elsewhere, name another relay, or an empty list for it in [relays]"
        ),
        (false, _) => format!("{relay} is not a relay of {server}"),
    };
    Err(not_found(text))
}

/// Lets the word of a relay count again that lost mail, and forgets what it lost; takes effect at once.
#[utoipa::path(post, path = "/_restante/admin/v1/relays/{server}/{relay}/trust", tag = "relays",
    params(("server" = String, Path, description = "Whose mail it holds"), ("relay" = String, Path)),
    security(("token" = []), ("matrix" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn trust(
    State(state): State<AdminState>,
    names: Result<Path<(ServerName, ServerName)>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path((server, relay)) = names?;
    let trusted = trust::trust(&state.site.database, server.clone(), relay.clone()).await;
    if trusted.map_err(unavailable)? {
        return Ok(done());
    }
    Err(not_found(format!("the word of {relay} counts for mail of {server} already")))
}

fn entry(server: &ServerName, relay: KnownRelay) -> RelayEntry {
    let source = match relay.source {
        RelaySource::Configuration => "configuration",
        RelaySource::Operator => "operator",
    };
    RelayEntry {
        server: server.clone(),
        server_name: relay.peer.name,
        url: relay.peer.url.map(|url| url.to_string()),
        source,
        in_force: true,
        outgoing: false,
        distrusted_since: None,
        record: None,
    }
}

fn of_record(recorded: &Recorded, named: &RelaysByServer) -> impl Iterator<Item = RelayEntry> {
    let Recorded { record, learned_from, learned_at } = recorded;
    let in_force = !named.contains_key(&record.server_name);
    let mut relays: Vec<_> = record.relays.iter().collect();
    relays.sort_by_key(|relay| relay.priority);
    relays.into_iter().map(move |relay| RelayEntry {
        server: record.server_name.clone(),
        server_name: relay.server_name.clone(),
        url: relay.url.clone(),
        source: "record",
        in_force,
        outgoing: false,
        distrusted_since: None,
        record: Some(OfRecord {
            priority: relay.priority,
            learned_from: learned_from.to_string(),
            learned_at: *learned_at,
            version: record.version,
        }),
    })
}
