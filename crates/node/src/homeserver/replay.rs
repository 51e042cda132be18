//! Replays a transaction to the homeserver, as its origin.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use restante_federation::{Body, Patience, collect_limited, full, signed_request};
use restante_federation_proto::{RequestTarget, escape_path_segment};
use restante_relay_api::endpoints::SEND;
use serde::Deserialize;

use super::Homeserver;

/// Synapse itself gives up a transaction after 60 s; on a slow machine its answer may take as long.
const REPLAY_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(90) };

/// Bytes of an answer that are read: an error text for each of 50 PDUs fits many times over.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Characters of a homeserver's text that are kept.
const TEXT_CHARS_MAX: usize = 300;

/// What the homeserver made of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// It answered 200; which events it refused, by id, with its words. The rest may still be dropped.
    Taken {
        /// The refused events.
        refused: BTreeMap<String, String>,
    },
    /// It may take it later.
    Later {
        /// Why not now.
        reason: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It does not believe the signature: it has no valid key of the origin, and may get one later.
    Keyless {
        /// What it says.
        reason: String,
    },
    /// It will never take it.
    Refused {
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    pdus: BTreeMap<String, PduAnswer>,
}

#[derive(Deserialize)]
struct PduAnswer {
    error: Option<String>,
}

#[derive(Default, Deserialize)]
struct ErrorAnswer {
    error: Option<String>,
    retry_after_ms: Option<u64>,
}

impl Homeserver {
    /// Delivers a transaction byte for byte as its origin signed it.
    pub(crate) async fn replay(
        &self,
        target: &str,
        authorization: &str,
        content: Bytes,
    ) -> Replayed {
        let (Ok(uri), Ok(authorization)) =
            (target.parse::<Uri>(), HeaderValue::from_str(authorization))
        else {
            return Replayed::Refused { reason: "the proof can't be sent over HTTP".to_owned() };
        };
        self.put(replay_request(uri, authorization, content)).await
    }

    /// Delivers a transaction in the homeserver's own name. `content` is canonical JSON.
    pub(crate) async fn rewrapped(&self, txn_id: &str, content: Bytes) -> Replayed {
        let identity = &self.shared.identity;
        let target = format!("{SEND}{}", escape_path_segment(txn_id));
        let Ok(target) = target.parse::<RequestTarget>() else {
            return Replayed::Refused { reason: "the transaction id can't be signed".to_owned() };
        };
        let destination = &identity.server_name;
        let request = signed_request(identity, Method::PUT, &target, destination, Some(content));
        self.put(request).await
    }

    async fn put(&self, request: Request<Body>) -> Replayed {
        let replayed = async {
            let answer =
                self.shared.exchange.exchange(&self.shared.peer, request, REPLAY_PATIENCE).await;
            match answer {
                Ok(answer) => read(answer).await,
                Err(error) => later(format!("the homeserver can't be reached: {error}")),
            }
        };
        tokio::time::timeout(REPLAY_PATIENCE.answer, replayed)
            .await
            .unwrap_or_else(|_| later("the homeserver did not answer in time".to_owned()))
    }
}

fn replay_request(uri: Uri, authorization: HeaderValue, content: Bytes) -> Request<Body> {
    let mut request = Request::new(full(content));
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, authorization);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

async fn read(answer: Response<Body>) -> Replayed {
    let status = answer.status();
    let retry_after = retry_after(&answer);
    let body = match collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return later(format!("the homeserver's answer broke off: {error}")),
    };
    if status == StatusCode::OK {
        return Replayed::Taken { refused: refused(&body) };
    }
    let error: ErrorAnswer = serde_json::from_slice(&body).unwrap_or_default();
    let text: String = error.error.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect();
    let reason = format!("the homeserver answered {status}: {text}");
    if is_permanent(status) {
        return Replayed::Refused { reason };
    }
    if status == StatusCode::UNAUTHORIZED {
        return Replayed::Keyless { reason };
    }
    let retry_after = error.retry_after_ms.map(Duration::from_millis).or(retry_after);
    Replayed::Later { reason, retry_after }
}

/// 401 is no judgement of the transaction: the homeserver could not get the origin's key, and may get it later.
fn is_permanent(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::PAYLOAD_TOO_LARGE
    )
}

fn refused(body: &[u8]) -> BTreeMap<String, String> {
    // Some implementations answer `null`; only the status counts then.
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return BTreeMap::new() };
    answer
        .pdus
        .into_iter()
        .filter_map(|(event_id, pdu)| {
            Some((event_id, pdu.error?.chars().take(TEXT_CHARS_MAX).collect()))
        })
        .collect()
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn later(reason: String) -> Replayed {
    Replayed::Later { reason, retry_after: None }
}
