//! `/keys`: whose keys are believed and why, what waiting mail offers, and the operator's own word.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation::{KeyStoreError, collect_limited};
use restante_federation_proto::{
    BelievedDocument, ErrorCode, Evidence, KEY_DOCUMENT_BYTES_MAX, KeyDocument, KeyId, MatrixError,
    ServerName, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{AdminState, Refusal, bad_request, done, not_found, shown};
use crate::inbox::Offer;

/// How long the server and those who vouch for it are asked; the command waits ten seconds.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);

#[derive(Deserialize)]
pub(super) struct Options {
    /// Whether the server itself is asked first, unless a valid document of it is believed.
    #[serde(default)]
    ask: bool,
}

/// A document as the operator compares it.
#[derive(Serialize)]
struct Shown {
    server_name: ServerName,
    keys: Vec<ShownKey>,
    valid_until: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct ShownKey {
    key_id: KeyId,
    /// Unpadded base64, as it stands in the document.
    key: String,
}

#[derive(Serialize)]
struct About {
    server_name: ServerName,
    believed: Option<WithDocument>,
    offered: Vec<ShownOffer>,
}

#[derive(Serialize)]
struct WithDocument {
    #[serde(flatten)]
    shown: Shown,
    document: Box<RawValue>,
}

#[derive(Serialize)]
struct ShownOffer {
    #[serde(flatten)]
    offered: WithDocument,
    envelopes: u64,
    relays: Vec<String>,
}

/// `GET /keys`.
pub(super) async fn list(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let believed = state.site.keys.list().await?;
    let believed: Vec<Shown> = believed.iter().map(Shown::believed).collect();
    Ok(shown(&believed))
}

/// `GET /keys/{server}[?ask=true]`.
pub(super) async fn show(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server.map_err(|error| bad_request(error.body_text()))?;
    let Query(options) = options.map_err(|error| bad_request(error.body_text()))?;
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
    let offered = state.inbox.offered_keys(&server).await?.into_iter().map(Into::into).collect();
    Ok(shown(&About { server_name: server, believed, offered }))
}

/// `PUT /keys/{server}` with the document: believed from now on as if the server itself had given it.
pub(super) async fn trust(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(server) = server.map_err(|error| bad_request(error.body_text()))?;
    let body = collect_limited(request.into_body(), KEY_DOCUMENT_BYTES_MAX).await;
    let body = body.map_err(|error| bad_request(error.to_string()))?;
    let document = KeyDocument::parse(body).map_err(|error| bad_request(error.to_string()))?;
    check(&state, &server, &document)?;
    state.site.keys.trust(&document).await?;
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

/// `DELETE /keys/{server}`.
pub(super) async fn forget(
    State(state): State<AdminState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server.map_err(|error| bad_request(error.body_text()))?;
    if state.site.keys.believed(&server).await.is_none() {
        return Err(not_found(format!("No keys of {server} are believed")));
    }
    state.site.keys.forget(&server).await?;
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

impl From<KeyStoreError> for Refusal {
    fn from(error: KeyStoreError) -> Self {
        tracing::error!(error = ?error.0, "the key store refused");
        let text = format!("Nothing was changed: {error}");
        Self(MatrixError::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text))
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
