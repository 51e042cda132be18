//! `POST /_matrix/federation/unstable/org.restante/collect`: acknowledge, wait, and collect a batch.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use restante_federation_proto::{ErrorCode, ServerName};
use restante_mailbox::{
    Acknowledgement, ContentHash, Depth, DuplicateKey, EntryId, Hold, Page, StoreError,
    StoredEnvelope,
};
use restante_relay_api::endpoints::MORE_AFTER_HEADER;
use restante_relay_api::limits::{
    ACKNOWLEDGEMENTS_MAX, COLLECT_BYTES_MAX, COLLECT_ENVELOPES_MAX, COLLECT_WAIT_MAX, HAVE_MAX,
};
use restante_relay_api::{
    CollectRequest, CollectResponse, MailDigest, Queued, RequestId, WireEnvelope, hex, parse_hex,
};

use crate::admission::InviteRule;
use crate::arrivals::Place;
use crate::callers::CameFrom;
use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, object};
use crate::memory::ReadingTurn;
use crate::request_log::delivery_id;
use crate::signed_at;
use crate::state::RelayState;
use crate::told::{any_heard, told};

/// Envelopes of one answer that are logged one by one: an owner who asks for the same batch again and again must not
/// fill the log.
const LOGGED_MAX: usize = 20;

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    question: SignedQuestion,
) -> Result<Response, Refusal> {
    let owner = question.caller.server_name();
    let request: CollectRequest = object(&question.body)?;
    let acknowledgements = acknowledgements(&request)?;
    let copies = copies(&request)?;
    let now = relay.clock.now();
    signed_at::check(request.signed_at, now)?;
    relay.admission.registrations.note_call(owner, now).await;
    if !acknowledgements.is_empty() {
        let acknowledged = relay.store.acknowledge(owner, &acknowledgements).await?;
        tracing::info!(mailbox = %owner, envelopes.removed = acknowledged.removed, "acknowledge");
    }
    if !copies.is_empty() {
        acknowledge_copies(&relay, owner, &copies).await;
    }
    let (envelopes, turn) = wait_for_mail(&relay, owner, question.from, &request).await?;
    log(owner, &envelopes);
    let answer = answer(&relay, owner, &request, envelopes).await?;
    let more_after = more_after(&answer);
    // Ten milliseconds for the largest batch: less than it took to read and write it.
    let (answer, coding) = question.wanted.encode(answer.to_json());
    let mut answer = json(StatusCode::OK, relay.answer_memory.hold(question.from, answer)?);
    drop(turn);
    if let Some(coding) = coding {
        answer.headers_mut().insert(CONTENT_ENCODING, coding);
    }
    if let Some(last) = more_after {
        answer.headers_mut().insert(MORE_AFTER_HEADER, last.into());
    }
    Ok(answer)
}

/// The last id of a part. What was handed over before and is not acknowledged counts as well: the next part may be empty.
fn more_after(answer: &CollectResponse) -> Option<u64> {
    let last = answer.envelopes.last()?.id;
    (answer.queued.count > answer.envelopes.len() as u64).then_some(last)
}

/// What fails here costs a download, and must not keep the mailbox from being collected.
async fn acknowledge_copies(relay: &RelayState, owner: &ServerName, copies: &[DuplicateKey]) {
    let now = relay.clock.now();
    match relay.stores.accounts.acknowledge_copies(owner, copies, now).await {
        Ok(copies) => {
            relay.counted.acknowledged(copies.removed);
            tracing::info!(mailbox = %owner, envelopes.removed = copies.removed, "acknowledge copies");
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(mailbox = %owner, error, "copies can't be acknowledged");
        }
    }
}

/// The envelopes, what else is there, and what never came.
async fn answer(
    relay: &RelayState,
    owner: &ServerName,
    request: &CollectRequest,
    envelopes: Vec<StoredEnvelope>,
) -> Result<CollectResponse, StoreError> {
    let (depth, losses) = relay.store.standing(owner).await?;
    if let Some(heard_until) = request.heard_until
        && any_heard(&losses, request.heard_until)
    {
        relay.store.forget_losses(owner, heard_until).await?;
    }
    let hold = if envelopes.is_empty() { hold(relay, owner).await? } else { Hold::Released };
    let envelopes = envelopes.into_iter().map(wire_envelope).collect();
    let told = told(losses, request.heard_until, hold);
    Ok(CollectResponse { envelopes, queued: queued(depth), told })
}

/// Whether the operator holds the mailbox; one that hands mail out is not held.
async fn hold(relay: &RelayState, owner: &ServerName) -> Result<Hold, StoreError> {
    let summary = relay.stores.custody.summary(owner).await?;
    Ok(summary.map_or(Hold::Released, |summary| summary.hold))
}

fn log(owner: &ServerName, envelopes: &[StoredEnvelope]) {
    let (first, rest) = envelopes.split_at(envelopes.len().min(LOGGED_MAX));
    for StoredEnvelope { id, deposit } in first {
        let delivery_id = delivery_id(&deposit.members);
        let delivery_id = delivery_id.as_ref().map(RequestId::as_str);
        let (id, origin) = (id.get(), &deposit.origin);
        tracing::info!(mailbox = %owner, %origin, envelope.id = id, delivery.id = delivery_id, "collect");
    }
    if !rest.is_empty() {
        tracing::info!(mailbox = %owner, envelopes = rest.len(), "collect, further envelopes");
    }
}

/// A place to wait in, if the caller wants one, has a mailbox here, and there is one left.
async fn place<'a>(
    relay: &'a RelayState,
    owner: &ServerName,
    from: CameFrom,
    wait: Duration,
) -> Result<Option<Place<'a>>, StoreError> {
    let rules = relay.rules();
    let is_served = rules.served.invite_of(owner) == InviteRule::NotNeeded
        || relay.admission.registrations.terms(owner).await?.is_some();
    if wait.is_zero() || !is_served {
        return Ok(None);
    }
    Ok(relay.arrivals.wait_for(owner, from, rules.waiting))
}

/// Looks into the mailbox until there is mail, the wait is over, or the relay stops. With mail comes the turn in which it
/// was read.
async fn wait_for_mail<'a>(
    relay: &'a RelayState,
    owner: &ServerName,
    from: CameFrom,
    request: &CollectRequest,
) -> Result<(Vec<StoredEnvelope>, Option<ReadingTurn<'a>>), StoreError> {
    let wait = Duration::from_millis(request.wait_ms).min(COLLECT_WAIT_MAX);
    let deadline = tokio::time::Instant::now() + wait;
    let place = place(relay, owner, from, wait).await?;
    loop {
        // Interest is registered before the look: what arrives in between still wakes us.
        let arrived = place.as_ref().map(|place| place.arrived().notified());
        let mut arrived = std::pin::pin!(arrived);
        if let Some(arrived) = arrived.as_mut().as_pin_mut() {
            arrived.enable();
        }
        let turn = relay.reading.turn().await;
        let collected = relay.store.collect(owner, cursor(request), page(request)).await?;
        if !collected.envelopes.is_empty() {
            return Ok((collected.envelopes, Some(turn)));
        }
        drop(turn);
        let Some(arrived) = arrived.as_pin_mut() else { return Ok((Vec::new(), None)) };
        tokio::select! {
            biased;
            () = arrived => {}
            () = tokio::time::sleep_until(deadline) => return Ok((Vec::new(), None)),
            () = relay.shutdown.cancelled() => return Ok((Vec::new(), None)),
        }
    }
}

/// The highest id stands for all above it, so that a cursor beyond every id never means "from the start".
fn cursor(request: &CollectRequest) -> Option<EntryId> {
    EntryId::new(request.after.min(EntryId::MAX.get()))
}

fn page(request: &CollectRequest) -> Page {
    let clamp = |asked: u64, max: usize| usize::try_from(asked).unwrap_or(max).clamp(1, max);
    Page {
        envelopes_max: clamp(request.limit, COLLECT_ENVELOPES_MAX),
        bytes_max: clamp(request.max_bytes, COLLECT_BYTES_MAX),
    }
}

fn acknowledgements(request: &CollectRequest) -> Result<Vec<Acknowledgement>, Refusal> {
    if request.acknowledge.len() > ACKNOWLEDGEMENTS_MAX {
        let text = format!("At most {ACKNOWLEDGEMENTS_MAX} acknowledgements at once");
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    // An id that is never given is unknown, and unknown ids are no error.
    let known = request.acknowledge.iter().filter_map(|one| Some((EntryId::new(one.id)?, one)));
    let content_hash = |sha256: &Option<String>| sha256.as_deref().map(content_hash).transpose();
    known
        .map(|(id, one)| Ok(Acknowledgement { id, content_hash: content_hash(&one.sha256)? }))
        .collect()
}

/// What the owner has from elsewhere.
fn copies(request: &CollectRequest) -> Result<Vec<DuplicateKey>, Refusal> {
    if request.have.len() > HAVE_MAX {
        let text = format!("At most {HAVE_MAX} transactions from elsewhere at once");
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    Ok(request.have.iter().map(|MailDigest(digest)| DuplicateKey(*digest)).collect())
}

/// The hash of content that a caller names.
pub(super) fn content_hash(text: &str) -> Result<ContentHash, Refusal> {
    let hash = parse_hex(text).ok_or_else(|| {
        Refusal::bad(ErrorCode::InvalidParam, "A sha256 has 64 lower-case hex digits")
    })?;
    Ok(ContentHash(hash))
}

fn wire_envelope(envelope: StoredEnvelope) -> WireEnvelope {
    let deposit = envelope.deposit;
    WireEnvelope {
        id: envelope.id.get(),
        sha256: hex(&deposit.content_hash.0),
        origin: deposit.origin,
        txn_id: deposit.txn_id,
        deposited_at: deposit.deposited_at,
        content: deposit.content,
        extras: deposit.members,
    }
}

fn queued(depth: Depth) -> Queued {
    Queued { count: depth.count, bytes: depth.bytes, oldest_at: depth.oldest_at }
}
