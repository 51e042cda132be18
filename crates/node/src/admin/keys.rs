//! `/keys`: whose keys are believed and why, what waiting mail offers, and the operator's own word.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use restante_federation::collect_limited;
use restante_federation_proto::{
    BelievedDocument, Evidence, KEY_DOCUMENT_BYTES_MAX, KeyDocument, KeyId, ServerName, Timestamp,
};
use restante_operators::{Refusal, RefusalBody, bad_request, done, not_found, shown, unavailable};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use crate::inbox::Offer;

/// How long the server and those who vouch for it are asked; the command waits ten seconds.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    /// Whether the server itself is asked first, unless a valid document of it is believed.
    #[serde(default)]
    ask: bool,
}

/// A document as the operator compares it.
#[derive(Serialize, ToSchema)]
pub(super) struct Shown {
    #[schema(value_type = String)]
    server_name: ServerName,
    keys: Vec<ShownKey>,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    valid_until: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    learned_at: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
struct ShownKey {
    #[schema(value_type = String)]
    key_id: KeyId,
    /// Unpadded base64, as it stands in the document.
    key: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct About {
    #[schema(value_type = String)]
    server_name: ServerName,
    believed: Option<WithDocument>,
    offered: Vec<ShownOffer>,
}

#[derive(Serialize, ToSchema)]
struct WithDocument {
    #[serde(flatten)]
    shown: Shown,
    #[schema(value_type = Object)]
    document: Box<RawValue>,
}

#[derive(Serialize, ToSchema)]
struct ShownOffer {
    #[serde(flatten)]
    offered: WithDocument,
    envelopes: u64,
    relays: Vec<String>,
}

/// Whose keys are believed, and why.
#[utoipa::path(get, path = "/_restante/admin/v1/keys", tag = "keys", security(("token" = [])),
    responses((status = 200, body = [Shown])))]
pub(super) async fn list(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let believed = state.site.keys.list().await.map_err(unavailable)?;
    let believed: Vec<Shown> = believed.iter().map(Shown::believed).collect();
    Ok(shown(&believed))
}

/// What is believed of a server, and what its unverified mail offers.
#[utoipa::path(get, path = "/_restante/admin/v1/keys/{server}", tag = "keys", params(("server" = String, Path), Options),
    security(("token" = [])), responses((status = 200, body = About)))]
pub(super) async fn show(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    let Query(options) = options?;
    let keys = &state.site.keys;
    let believed = if server == *state.site.server_name() {
        Some(WithDocument::own(&state.site.own_keys.document().await))
    } else {
        if options.ask && server.public_key().is_none() {
            let asked = keys.refreshed(&server, state.site.clock.now());
            // What comes of it is believed, or it is not.
            let _ = tokio::time::timeout(ASK_TIMEOUT, asked).await;
        }
        keys.believed(&server).await.as_ref().map(WithDocument::believed)
    };
    let offered = state.inbox.offered_keys(&server).await.map_err(unavailable)?;
    let offered = offered.into_iter().map(Into::into).collect();
    Ok(shown(&About { server_name: server, believed, offered }))
}

/// Takes a key document, which is believed from now on as if the server itself had given it.
#[utoipa::path(put, path = "/_restante/admin/v1/keys/{server}", tag = "keys", params(("server" = String, Path)),
    request_body(content = Object, description = "As GET /_matrix/key/v2/server gives it"), security(("token" = [])),
    responses((status = 200, body = Shown), (status = 400, body = RefusalBody)))]
pub(super) async fn trust(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    let body = collect_limited(request.into_body(), KEY_DOCUMENT_BYTES_MAX).await?;
    let document = KeyDocument::parse(body).map_err(|error| bad_request(error.to_string()))?;
    check(&state, &server, &document)?;
    state.site.keys.trust(&document).await.map_err(unavailable)?;
    tracing::info!(%server, "the operator trusts a key document");
    state.inbox.judge_soon(&server);
    Ok(shown(&Shown::of(&document)))
}

fn check(state: &AdminState, server: &ServerName, document: &KeyDocument) -> Result<(), Refusal> {
    if document.server_name() != server {
        let text = format!("The document speaks of {}, not of {server}", document.server_name());
        return Err(bad_request(text));
    }
    if server == state.site.server_name() {
        return Err(bad_request("The own key comes from signing_key in the configuration file"));
    }
    if server.public_key().is_some() {
        return Err(bad_request(format!("{server} is a key itself; it needs no document")));
    }
    Ok(())
}

/// Forgets what is believed of a server; it is asked again when its key is needed.
#[utoipa::path(delete, path = "/_restante/admin/v1/keys/{server}", tag = "keys", params(("server" = String, Path)),
    security(("token" = [])), responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn forget(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    if state.site.keys.believed(&server).await.is_none() {
        return Err(not_found(format!("No keys of {server} are believed")));
    }
    state.site.keys.forget(&server).await.map_err(unavailable)?;
    tracing::info!(%server, "the operator forgot the keys of a server");
    state.inbox.judge_soon(&server);
    Ok(done())
}

impl Shown {
    fn of(document: &KeyDocument) -> Self {
        let keys = document.verify_keys().iter();
        Self {
            server_name: document.server_name().clone(),
            keys: keys
                .map(|(key_id, key)| ShownKey { key_id: key_id.clone(), key: key.to_base64() })
                .collect(),
            valid_until: document.valid_until(),
            evidence: None,
            learned_at: None,
        }
    }

    fn believed(believed: &BelievedDocument) -> Self {
        Self {
            evidence: Some(evidence(believed.evidence)),
            learned_at: Some(believed.learned_at),
            ..Self::of(&believed.document)
        }
    }
}

impl WithDocument {
    fn of(shown: Shown, document: &KeyDocument) -> Self {
        let document = serde_json::from_slice(document.raw()).expect("it was parsed as JSON");
        Self { shown, document }
    }

    fn believed(believed: &BelievedDocument) -> Self {
        Self::of(Shown::believed(believed), &believed.document)
    }

    fn own(document: &KeyDocument) -> Self {
        Self::of(Shown { evidence: Some("own key"), ..Shown::of(document) }, document)
    }
}

impl From<Offer> for ShownOffer {
    fn from(offer: Offer) -> Self {
        Self {
            offered: WithDocument::of(Shown::of(&offer.document), &offer.document),
            envelopes: offer.envelopes,
            relays: offer.relays.into_iter().collect(),
        }
    }
}

fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::FirstContact => "first contact",
        Evidence::Event => "signed an event that the homeserver holds",
        Evidence::Vouched => "vouched for by the homeserver or a notary",
        Evidence::Fetched => "fetched from the server itself, or trusted by the operator",
        Evidence::NameIsKey => "the name is the key",
    }
}
