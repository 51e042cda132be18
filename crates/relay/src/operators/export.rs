//! `/mailboxes/{server}/export`: all mail of a mailbox, one envelope a line. The mailbox keeps it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{Custody, EntryId, Onward, Page, StoreError, StoredEnvelope};
use restante_operators::{Refusal, RefusalBody};
use restante_relay_api::hex;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::OperatorsState;
use super::envelopes::cursor;
use super::wire::onward_word;

/// What is read from the store at once: a few of the largest envelopes, so that an export takes little memory.
const PAGE: Page = Page { envelopes_max: 100, bytes_max: 4 * 1024 * 1024 };

/// Where to begin and end.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Only envelopes with higher ids.
    after: Option<u64>,
    /// Envelopes at most; all when absent.
    limit: Option<u64>,
}

/// One line.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct ExportedEnvelope {
    /// Its number in the mailbox that it was exported from; an import gives it another.
    pub(super) id: u64,
    #[schema(value_type = String)]
    pub(super) recipient: ServerName,
    #[schema(value_type = String)]
    pub(super) origin: ServerName,
    pub(super) txn_id: String,
    /// Of the canonical content, in hex.
    pub(super) sha256: String,
    #[schema(value_type = u64)]
    pub(super) deposited_at: Timestamp,
    #[schema(value_type = u64)]
    pub(super) expires_at: Timestamp,
    /// The transaction as received, in base64.
    pub(super) content: String,
    /// The `org.restante.*` members as one JSON object, in base64; empty when there were none.
    pub(super) members: String,
    /// `wanted` or `refused` if it is to be delivered onward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) onward: Option<String>,
}

/// Envelopes as newline-delimited JSON, in the order of their ids. An answer that breaks off is not whole: go on after
/// the last id.
#[utoipa::path(get, path = "/_restante/admin/v1/mailboxes/{server}/export", tag = "mailboxes",
    params(("server" = String, Path), Part), security(("token" = [])),
    responses((status = 200, body = ExportedEnvelope, content_type = "application/x-ndjson"), (status = 404, body = RefusalBody)))]
pub(super) async fn handle(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (Path(server), Query(part)) = (server?, part?);
    state.mailbox(&server).await?;
    let export = Export {
        custody: state.relay.stores.custody.clone(),
        server,
        after: cursor(part.after),
        left: part.limit.unwrap_or(u64::MAX),
    };
    let lines = try_unfold(export, Export::next);
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response())
}

/// An export under way.
struct Export {
    custody: Arc<dyn Custody>,
    server: ServerName,
    after: Option<EntryId>,
    left: u64,
}

impl Export {
    /// The next lines; `None` at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(PAGE.envelopes_max);
        if wanted == 0 {
            return Ok(None);
        }
        let page = Page { envelopes_max: wanted, ..PAGE };
        let found = self.custody.export(&self.server, self.after, page).await;
        let found = found.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, mailbox = %self.server, "an export broke off");
        })?;
        let Some(last) = found.envelopes.last() else { return Ok(None) };
        self.after = Some(last.id);
        self.left -= found.envelopes.len() as u64;
        Ok(Some((found.envelopes.into_iter().flat_map(line).collect(), self)))
    }
}

fn line(envelope: StoredEnvelope) -> Vec<u8> {
    let deposit = envelope.deposit;
    let exported = ExportedEnvelope {
        id: envelope.id.get(),
        recipient: deposit.recipient,
        origin: deposit.origin,
        txn_id: deposit.txn_id,
        sha256: hex(&deposit.content_hash.0),
        deposited_at: deposit.deposited_at,
        expires_at: deposit.expires_at,
        content: STANDARD.encode(&deposit.content),
        members: STANDARD.encode(&deposit.members),
        onward: (deposit.onward != Onward::No).then(|| onward_word(deposit.onward).to_owned()),
    };
    let mut line = serde_json::to_vec(&exported).expect("a struct of texts and numbers is JSON");
    line.push(b'\n');
    line
}
