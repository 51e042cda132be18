//! One request to a relay, signed in the homeserver's name, and its answer, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{ExchangeError, Patience, Peer, collect_limited, signed_request};
use restante_federation_proto::{RequestTarget, Timestamp};
use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::limits::{
    BODY_BYTES_MAX, COLLECT_BYTES_MAX, COLLECT_WAIT_MAX, EXTRAS_BYTES_MAX,
};
use restante_relay_api::{CollectRequest, CollectResponse};
use serde::Deserialize;

use super::course::Ask;
use crate::site::Site;

/// Envelopes in one batch: judged and stored together.
const BATCH_MAX: u64 = 100;

/// Bytes of one answer: a full batch, or one envelope of the largest size, and what the JSON around it takes.
const ANSWER_BYTES_MAX: usize =
    COLLECT_BYTES_MAX + BODY_BYTES_MAX + EXTRAS_BYTES_MAX + BATCH_MAX as usize * 1024;

/// How long discovery and connecting may take.
const CONNECT: Duration = Duration::from_secs(15);

/// How long an answer may take, beyond the wait that was asked for: the largest one over a slow line.
const ANSWER: Duration = Duration::from_secs(60);

/// Characters of a relay's text that are kept.
const TEXT_CHARS_MAX: usize = 300;

/// Why there is nothing from the relay.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The answer did not come to its end.
    #[error("the answer did not come to its end: {0}")]
    Broken(String),
    /// The relay's clock differs from ours.
    #[error("the relay's clock shows another time than ours")]
    Clock {
        /// The relay's time.
        theirs: Timestamp,
    },
    /// The relay knows no such endpoint.
    #[error("the relay does not know this request")]
    Unknown,
    /// The relay refused.
    #[error("the relay answered {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it says.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the endpoint gives.
    #[error("the relay's answer can't be read: {0}")]
    Unreadable(String),
}

#[derive(Default, Deserialize)]
struct Refusal {
    error: Option<String>,
    now: Option<Timestamp>,
    retry_after_ms: Option<u64>,
}

/// Asks for a batch. `signed_at` is the time by the relay's clock.
pub(super) async fn collect(
    site: &Site,
    relay: &Peer,
    ask: &Ask,
    wait: Duration,
    signed_at: Timestamp,
) -> Result<CollectResponse, CallError> {
    let wait = if ask.waits { wait.min(COLLECT_WAIT_MAX) } else { Duration::ZERO };
    let request = CollectRequest {
        after: ask.after,
        acknowledge: ask.acknowledge.clone(),
        limit: BATCH_MAX,
        max_bytes: COLLECT_BYTES_MAX as u64,
        wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        heard_until: None,
        signed_at,
    };
    let target = COLLECT.parse().expect("the endpoint's path holds nothing that can't be signed");
    let body = request.to_canonical_json().into();
    let answer = call(site, relay, Method::POST, &target, body, wait + ANSWER).await?;
    CollectResponse::parse(&answer).map_err(|error| CallError::Unreadable(error.to_string()))
}

/// Sends a signed request; the body of a 200.
pub(super) async fn call(
    site: &Site,
    relay: &Peer,
    method: Method,
    target: &RequestTarget,
    body: Bytes,
    patience: Duration,
) -> Result<Bytes, CallError> {
    let request = signed_request(&site.identity, method, target, &relay.name, Some(body));
    let exchange = async {
        let patience = Patience { connect: CONNECT, answer: patience };
        let answer = site.exchange.exchange(relay, request, patience).await?;
        let status = answer.status();
        let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await;
        Ok::<_, CallError>((status, body.map_err(|error| CallError::Broken(error.to_string()))?))
    };
    let (status, body) = tokio::time::timeout(CONNECT + patience, exchange)
        .await
        .map_err(|_| CallError::Broken("it took too long".to_owned()))??;
    if status == StatusCode::OK { Ok(body) } else { Err(refusal(status, &body)) }
}

fn refusal(status: StatusCode, body: &[u8]) -> CallError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    match (status, refusal.now) {
        (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, Some(theirs)) => {
            CallError::Clock { theirs }
        }
        (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => CallError::Unknown,
        _ => CallError::Refused {
            status,
            text: refusal.error.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect(),
            retry_after: refusal.retry_after_ms.map(Duration::from_millis),
        },
    }
}
