//! `GET /_matrix/federation/v1/relay_txn/{userId}`: collect the oldest envelope, Dendrite's way.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, ServerName, UserId};
use restante_mailbox::{Acknowledgement, EntryId, Page};
use restante_relay_api::{RelayTxnRequest, RelayTxnResponse};

use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, object};
use crate::state::RelayState;

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    path: Result<Path<String>, PathRejection>,
    question: SignedQuestion,
) -> Result<Response, Refusal> {
    let Path(user_id) = path?;
    let user_id: UserId = user_id
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    let owner = question.caller.server_name();
    if user_id.server_name() != owner {
        return Err(Refusal::not_the_owner());
    }
    let acknowledged = acknowledged(&question.body)?;
    relay.admission.registrations.note_call(owner, relay.clock.now()).await;
    if let Some(id) = acknowledged {
        let acknowledgement = Acknowledgement { id, content_hash: None };
        let acknowledged = relay.store.acknowledge(owner, &[acknowledgement]).await?;
        tracing::info!(mailbox = %owner, envelopes.removed = acknowledged.removed, "acknowledge");
    }
    let _turn = relay.reading.turn().await;
    let answer = oldest(&relay, owner).await?;
    Ok(json(StatusCode::OK, relay.answer_memory.hold(question.from, answer.to_json())?))
}

/// The entry that the body acknowledges. A GET without its body is refused: some proxies strip it, and without
/// it nothing would ever be acknowledged.
fn acknowledged(body: &[u8]) -> Result<Option<EntryId>, Refusal> {
    if body.is_empty() {
        let text =
            "The request has no body; expected {\"entry_id\":N} (a proxy may have removed it)";
        return Err(Refusal::bad(ErrorCode::NotJson, text));
    }
    let request: RelayTxnRequest = object(body)?;
    let id = u64::try_from(request.entry_id)
        .map_err(|_| Refusal::bad(ErrorCode::BadJson, "entry_id must be 0 or more"))?;
    // Ids beyond those that are ever given are unknown, and unknown ids are no error.
    Ok(EntryId::new(id))
}

async fn oldest(relay: &RelayState, owner: &ServerName) -> Result<RelayTxnResponse, Refusal> {
    let page = Page { envelopes_max: 1, bytes_max: usize::MAX };
    let collected = relay.store.collect(owner, None, page).await?;
    let envelope = collected.envelopes.into_iter().next();
    Ok(envelope.map_or(RelayTxnResponse::Empty, |envelope| RelayTxnResponse::Envelope {
        entry_id: envelope.id.get(),
        content: envelope.deposit.content,
        extras: envelope.deposit.members,
    }))
}
