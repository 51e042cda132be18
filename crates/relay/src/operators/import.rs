//! `/mailboxes/{server}/import`: puts the lines of an export into a mailbox.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use restante_federation::collect_limited;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{ContentHash, Deposit, StoreError};
use restante_operators::{Refusal, RefusalBody, bad_request, shown, unavailable};
use restante_relay_api::limits::{BODY_BYTES_MAX, TXN_ID_BYTES_MAX};
use restante_relay_api::{DepositBody, Extras, hex};
use serde::Serialize;
use utoipa::ToSchema;

use super::OperatorsState;
use super::export::ExportedEnvelope;
use super::wire::onward_of;

/// Bytes of one import: two of the largest envelopes in base64. Longer files come in parts.
const IMPORT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Lines of one import: one durable commit holds up everybody else's for its time.
const LINES_MAX: usize = 10_000;

/// What became of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportedShown {
    /// Envelopes that were stored.
    imported: u64,
    /// Envelopes that were there before, or were collected before.
    duplicates: u64,
}

/// Stores the lines of an export in this mailbox, all of them or none; what has come before is skipped. Quotas do not
/// count.
#[utoipa::path(post, path = "/_restante/admin/v1/mailboxes/{server}/import", tag = "mailboxes",
    params(("server" = String, Path)), security(("token" = [])),
    request_body(content = ExportedEnvelope, content_type = "application/x-ndjson"),
    responses((status = 200, body = ImportedShown), (status = 400, body = RefusalBody)))]
pub(super) async fn handle(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    if server == *state.relay.server_name() {
        return Err(bad_request("This server is a relay: it has no mail of its own"));
    }
    let _turn = state.importing.lock().await;
    let body = collect_limited(request.into_body(), IMPORT_BYTES_MAX).await?;
    let (now, rules) = (state.relay.clock.now(), state.relay.rules());
    let latest = now.after(rules.age.time_to_live);
    let mail = deposits(&body, &server, latest)?;
    // A task of its own: once it is stored those who wait for it hear of it, whether or not the operator still waits.
    let importing = {
        let (relay, server) = (state.relay.clone(), server.clone());
        state.relay.deposits.spawn(async move {
            let imported = relay.stores.custody.import(mail).await?;
            relay.arrivals.announce(&server);
            relay.onward.left(&server);
            Ok::<_, StoreError>(imported)
        })
    };
    let imported = importing.await.map_err(unavailable)?.map_err(unavailable)?;
    let (imported, duplicates) = (imported.imported, imported.duplicates);
    tracing::info!(mailbox = %server, imported, duplicates, "the operator imported mail");
    Ok(shown(&ImportedShown { imported, duplicates }))
}

fn deposits(
    body: &[u8],
    recipient: &ServerName,
    latest: Timestamp,
) -> Result<Vec<Deposit>, Refusal> {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    let lines: Vec<_> = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).collect();
    if lines.len() > LINES_MAX {
        return Err(bad_request(format!("At most {LINES_MAX} lines at once; send the rest after")));
    }
    let parsed = lines.into_iter().map(|(index, line)| {
        deposit(line, recipient, latest).map_err(|what| {
            bad_request(format!("Nothing was imported: line {}: {what}", index + 1))
        })
    });
    parsed.collect()
}

/// A line may come from another relay's mailbox of the same owner, and from nobody else's. What no signature vouches for
/// here, the recipient verifies as it verifies all mail.
fn deposit(line: &[u8], recipient: &ServerName, latest: Timestamp) -> Result<Deposit, String> {
    let line: ExportedEnvelope = serde_json::from_slice(line)
        .map_err(|error| format!("not a line of an export: {error}"))?;
    if line.recipient != *recipient {
        return Err(format!("it is mail for {}", line.recipient));
    }
    if line.txn_id.is_empty() || line.txn_id.len() > TXN_ID_BYTES_MAX {
        return Err(format!("a transaction id has 1 to {TXN_ID_BYTES_MAX} bytes"));
    }
    let decode = |text: &str| STANDARD.decode(text).map(Bytes::from);
    let content = decode(&line.content).map_err(|error| format!("content: {error}"))?;
    let members = decode(&line.members).map_err(|error| format!("members: {error}"))?;
    // No deposit was larger, and whoever collects reads no more.
    if content.len() > BODY_BYTES_MAX {
        return Err(format!("content: a transaction has at most {BODY_BYTES_MAX} bytes"));
    }
    let members = Extras::parse(members).map_err(|error| format!("members: {error}"))?.json;
    let parsed = DepositBody::parse(content).map_err(|error| format!("content: {error}"))?;
    let content_hash = *parsed.content.sha256();
    if hex(&content_hash) != line.sha256 {
        return Err("the content is not what its sha256 says; the file is damaged".to_owned());
    }
    let onward = onward_of(line.onward.as_deref())
        .ok_or_else(|| "onward is `no`, `wanted` or `refused`".to_owned())?;
    Ok(Deposit {
        recipient: line.recipient,
        origin: line.origin,
        txn_id: line.txn_id,
        content_hash: ContentHash(content_hash),
        content: parsed.content.raw().clone(),
        members,
        deposited_at: line.deposited_at,
        expires_at: line.expires_at.min(latest),
        onward,
    })
}
