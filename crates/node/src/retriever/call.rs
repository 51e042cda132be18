//! Asks a relay for a batch of mail.

use std::time::Duration;

use http::{HeaderMap, Method};
use restante_federation::{Patience, Peer};
use restante_federation_proto::Timestamp;
use restante_relay_api::endpoints::{COLLECT, MORE_AFTER_HEADER};
use restante_relay_api::limits::{
    BODY_BYTES_MAX, COLLECT_BYTES_MAX, COLLECT_ENVELOPES_MAX, COLLECT_WAIT_MAX, EXTRAS_BYTES_MAX,
};
use restante_relay_api::{CollectRequest, CollectResponse};

use super::course::Ask;
use super::flights::Announced;
use crate::relay_call::{Call, CallError, call_noting};
use crate::site::Site;

/// Bytes of one answer: a full batch, or one envelope of the largest size, and what the JSON around it takes.
pub(super) const ANSWER_BYTES_MAX: usize =
    COLLECT_BYTES_MAX + BODY_BYTES_MAX + EXTRAS_BYTES_MAX + COLLECT_ENVELOPES_MAX * 1024;

/// How long discovery and connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(15);

/// How long an answer may take to begin, beyond the wait that was asked for.
const ANSWER: Duration = Duration::from_secs(60);

/// Asks for what `ask` says. `signed_at` is the time by the relay's clock. Where a part ends is `announced` when half of it has
/// come.
pub(super) async fn collect(
    site: &Site,
    relay: &Peer,
    ask: &Ask,
    wait: Duration,
    signed_at: Timestamp,
    announced: &Announced,
) -> Result<CollectResponse, CallError> {
    let wait = if ask.waits { wait.min(COLLECT_WAIT_MAX) } else { Duration::ZERO };
    let request = CollectRequest {
        after: ask.after,
        acknowledge: ask.acknowledge.clone(),
        have: ask.have.clone(),
        limit: ask.envelopes_max,
        max_bytes: ask.bytes_max,
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        heard_until: ask.heard_until,
        signed_at,
    };
    let target = COLLECT.parse().expect("the endpoint's path holds nothing that can't be signed");
    let body = request.to_canonical_json().into();
    let patience = Patience { connect: CONNECT, answer: wait + ANSWER };
    let asked = Call {
        method: Method::POST,
        target: &target,
        body: Some(body),
        patience,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let on_half = |headers: &HeaderMap| {
        let last = headers.get(MORE_AFTER_HEADER).and_then(|last| last.to_str().ok());
        if let Some(last) = last.and_then(|last| last.parse().ok()) {
            announced.end(last);
        }
    };
    let answer = call_noting(site, relay, asked, on_half).await?;
    CollectResponse::parse(&answer).map_err(|error| CallError::Unreadable(error.to_string()))
}
