//! `POST /_matrix/federation/unstable/org.restante/collect`: acknowledge, wait, and collect a batch.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName, Timestamp};
use restante_mailbox::{
    Acknowledgement, ContentHash, Depth, EntryId, Page, StoreError, StoredEnvelope,
};
use restante_relay_api::limits::{
    ACKNOWLEDGEMENTS_MAX, COLLECT_BYTES_MAX, COLLECT_ENVELOPES_MAX, COLLECT_WAIT_MAX,
    SIGNED_AT_TOLERANCE,
};
use restante_relay_api::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Queued, Told, WireEnvelope, hex,
};

use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, object};
use crate::state::RelayState;

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    question: SignedQuestion,
) -> Result<Response, Refusal> {
    let owner = question.caller.server_name();
    let request: CollectRequest = object(&question.body)?;
    let acknowledgements = acknowledgements(&request)?;
    let now = relay.clock.now();
    if !signed_in_time(request.signed_at, now) {
        return Err(clock_refusal(now));
    }
    if !acknowledgements.is_empty() {
        relay.store.acknowledge(owner, &acknowledgements).await?;
    }
    let envelopes = wait_for_mail(&relay, owner, &request).await?;
    let depth = relay.store.depth(owner).await?;
    let envelopes = envelopes.into_iter().map(wire_envelope).collect();
    let answer = CollectResponse { envelopes, queued: queued(depth), told: Told::default() };
    Ok(json(StatusCode::OK, relay.answer_memory.hold(answer.to_json())?))
}

/// Looks into the mailbox until there is mail, the wait is over, or the relay stops.
async fn wait_for_mail(
    relay: &RelayState,
    owner: &ServerName,
    request: &CollectRequest,
) -> Result<Vec<StoredEnvelope>, StoreError> {
    let wait = Duration::from_millis(request.wait_ms).min(COLLECT_WAIT_MAX);
    let deadline = tokio::time::Instant::now() + wait;
    let place = if wait.is_zero() { None } else { relay.arrivals.wait_for(owner) };
    loop {
        // Interest is registered before the look: what arrives in between still wakes us.
        let arrived = place.as_ref().map(|place| place.arrived().notified());
        let mut arrived = std::pin::pin!(arrived);
        if let Some(arrived) = arrived.as_mut().as_pin_mut() {
            arrived.enable();
        }
        let collected = relay.store.collect(owner, cursor(request), page(request)).await?;
        let Some(arrived) = arrived.as_pin_mut() else { return Ok(collected.envelopes) };
        if !collected.envelopes.is_empty() {
            return Ok(collected.envelopes);
        }
        tokio::select! {
            biased;
            () = arrived => {}
            () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
            () = relay.shutdown.cancelled() => return Ok(Vec::new()),
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
    known.map(|(id, one)| Ok(Acknowledgement { id, content_hash: content_hash(one)? })).collect()
}

fn content_hash(one: &CollectAcknowledgement) -> Result<Option<ContentHash>, Refusal> {
    let Some(text) = &one.sha256 else { return Ok(None) };
    let mut hash = [0; 32];
    let bad = || Refusal::bad(ErrorCode::InvalidParam, "A sha256 has 64 lower-case hex digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(Some(ContentHash(hash)))
}

fn signed_in_time(signed_at: Timestamp, now: Timestamp) -> bool {
    signed_at <= now.after(SIGNED_AT_TOLERANCE) && now <= signed_at.after(SIGNED_AT_TOLERANCE)
}

/// Carries the relay's time, so that a node with a bad clock can correct by it.
fn clock_refusal(now: Timestamp) -> Refusal {
    let text =
        "signed_at lies more than 60 s from this relay's clock; now says what time it is here";
    let error = MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text);
    error.detail("now", now.as_millis()).into()
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
