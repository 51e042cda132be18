//! Asks for key documents over the network: the server itself, and notaries.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use restante_federation_proto::{KeyDocument, KeyId, NotaryResponse, ServerName, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::body::{Body, collect_limited, empty, full};
use crate::exchange::{Exchange, Patience, Peer};

/// A document, as the server itself serves it.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// A notary's answer about one server.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Documents of a notary's answer that are looked at.
const DOCUMENTS_MAX: usize = 16;
/// Signatures of one notary on one document that are looked at.
const NOTARY_SIGNATURES_MAX: usize = 4;
/// Somebody waits for the answer, with a request of his own.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(5) };
/// From the head of an answer to its end.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the server itself says its keys are.
pub(super) async fn fetch(exchange: &dyn Exchange, peer: &Peer) -> Result<KeyDocument, String> {
    let server = &peer.name;
    let mut request = Request::new(empty());
    *request.uri_mut() = Uri::from_static("/_matrix/key/v2/server");
    let body = ask(exchange, peer, request, DOCUMENT_BYTES_MAX).await?;
    let document = KeyDocument::parse(body).map_err(|error| format!("{server}: {error}"))?;
    if document.server_name() != server {
        return Err(format!("{server} serves the keys of {}", document.server_name()));
    }
    Ok(document)
}

/// What `notary` has about `server`; its signature is not checked here.
pub(super) async fn ask_notary(
    exchange: &dyn Exchange,
    notary: &Peer,
    server: &ServerName,
    key_id: Option<&KeyId>,
    valid_until_min: Timestamp,
) -> Result<Vec<KeyDocument>, String> {
    let criteria = key_id.map_or_else(
        || json!({}),
        |key_id| json!({ key_id.as_str(): { "minimum_valid_until_ts": valid_until_min } }),
    );
    let query = json!({ "server_keys": { server.as_str(): criteria } }).to_string();
    let mut request = Request::new(full(query));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/_matrix/key/v2/query");
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    let body = ask(exchange, notary, request, ANSWER_BYTES_MAX).await?;
    let answer =
        NotaryResponse::parse(&body).map_err(|error| format!("{}: {error}", notary.name))?;
    let about = |document: &KeyDocument| document.server_name() == server;
    Ok(answer.server_keys.into_iter().filter(about).take(DOCUMENTS_MAX).collect())
}

async fn ask(
    exchange: &dyn Exchange,
    peer: &Peer,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Bytes, String> {
    let answer = exchange.exchange(peer, request, PATIENCE).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{} answered {}", peer.name, answer.status().as_u16()));
    }
    let body = collect_limited(answer.into_body(), bytes_max);
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(body) => body.map_err(|error| format!("{}: {error}", peer.name)),
        Err(_) => Err(format!("{} did not answer in time", peer.name)),
    }
}

/// The keys with which `notary` says that it signed `document`.
pub(super) fn signed_with(document: &KeyDocument, notary: &ServerName) -> Vec<KeyId> {
    #[derive(Deserialize)]
    struct Signed {
        signatures: HashMap<String, HashMap<String, IgnoredAny>>,
    }
    let Ok(signed) = serde_json::from_slice::<Signed>(document.raw()) else { return Vec::new() };
    let Some(by_notary) = signed.signatures.get(notary.as_str()) else { return Vec::new() };
    by_notary.keys().filter_map(|id| id.parse().ok()).take(NOTARY_SIGNATURES_MAX).collect()
}
