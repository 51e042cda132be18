//! One request to a relay, signed in the homeserver's name, and its answer, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use restante_federation::{
    BodyError, ContentCoding, ExchangeError, Patience, Peer, collect_steadily, signed_request,
};
use restante_federation_proto::{ErrorCode, RequestTarget, Timestamp};
use restante_relay_api::{REQUEST_ID_HEADER, RequestId};
use serde::Deserialize;

use crate::site::Site;

/// Differences of clocks below this are left alone; a relay allows a minute.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Bytes of an answer's body that come in a second over the slowest line that is provided for: 1 Mbit/s, less a fifth.
const BODY_BYTES_PER_SECOND: usize = 100_000;

/// An answer's body of which nothing comes for so long does not go on.
const STALL: Duration = Duration::from_secs(20);

/// Characters of a relay's text that are kept.
const TEXT_CHARS_MAX: usize = 300;

/// Why there is nothing from the relay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
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
    /// The relay's clock is so far ahead of ours that what is signed by it could be used long after.
    #[error(
        "its clock is {} s ahead of ours, too far to sign by it that we leave; set this machine's clock by NTP (timedatectl set-ntp true), or have the relay's operator set theirs", .ahead.as_secs()
    )]
    FarAhead {
        /// By how much.
        ahead: Duration,
    },
    /// The relay says that it knows no such endpoint.
    #[error("the relay does not know this request")]
    Unknown,
    /// The relay refused.
    #[error("the relay answered {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The Matrix error code; what stands before a relay gives none.
        errcode: Option<String>,
        /// What it says.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the endpoint gives.
    #[error("the relay's answer can't be read: {0}")]
    Unreadable(String),
}

impl CallError {
    /// Whether the relay may know no such endpoint, for those to whom a reverse proxy that answers in its place while it
    /// is away does no harm. Relays of Dendrite may answer nothing but 404.
    pub(crate) fn is_perhaps_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Refused { status, .. } => is_about_the_endpoint(*status),
            _ => false,
        }
    }
}

#[derive(Default, Deserialize)]
struct Refusal {
    errcode: Option<String>,
    error: Option<String>,
    now: Option<Timestamp>,
    retry_after_ms: Option<u64>,
}

/// What is asked of a relay, and for how long.
pub(crate) struct Call<'a> {
    /// The method.
    pub(crate) method: Method,
    /// The endpoint.
    pub(crate) target: &'a RequestTarget,
    /// The body, canonical, if there is one.
    pub(crate) body: Option<Bytes>,
    /// How long discovery and connecting may take, and the answer until it begins.
    pub(crate) patience: Patience,
    /// Bytes of an answer. Its body may take as long as so many do over a slow line.
    pub(crate) answer_bytes_max: usize,
}

/// Sends a signed request; the body of a 200.
pub(crate) async fn call(site: &Site, relay: &Peer, asked: Call<'_>) -> Result<Bytes, CallError> {
    call_noting(site, relay, asked, |_| {}).await
}

/// The same; `on_half` sees the headers of a 200 when half of its body has come, or at once where its length is not announced.
pub(crate) async fn call_noting(
    site: &Site,
    relay: &Peer,
    call: Call<'_>,
    on_half: impl FnOnce(&HeaderMap) + Send,
) -> Result<Bytes, CallError> {
    let Call { method, target, body, patience, answer_bytes_max } = call;
    let mut request = signed_request(&site.identity, method, target, &relay.name, body);
    let id = RequestId::of(site.dice.number());
    let header = HeaderValue::from_str(id.as_str()).expect("it is printable ASCII");
    request.headers_mut().insert(REQUEST_ID_HEADER, header);
    ContentCoding::offer(request.headers_mut());
    let exchange = async {
        let (head, body) = site.exchange.exchange(relay, request, patience).await?.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let half = length.and_then(|length| length.parse::<usize>().ok()).map_or(0, |all| all / 2);
        let mut note = Some(on_half).filter(|_| head.status == StatusCode::OK);
        let mut come = 0;
        let body = body.map_frame(|frame| {
            come += frame.data_ref().map_or(0, Bytes::len);
            if come >= half
                && let Some(on_half) = note.take()
            {
                on_half(&head.headers);
            }
            frame
        });
        let coding = ContentCoding::of(&head.headers);
        let coding = coding.map_err(|error| CallError::Unreadable(error.to_string()))?;
        let broken = |error: BodyError| CallError::Broken(error.to_string());
        let body = collect_steadily(body, answer_bytes_max, STALL).await.map_err(broken)?;
        let body = coding.decode(body, answer_bytes_max, |_| Ok(())).map_err(broken)?;
        Ok::<_, CallError>((head.status, body))
    };
    let time = patience.connect + patience.answer + body_time(answer_bytes_max);
    let answered = tokio::time::timeout(time, exchange).await;
    let late = |_| CallError::Broken("it took too long".to_owned());
    let answered = answered.map_err(late).flatten().and_then(|(status, body)| match status {
        StatusCode::OK => Ok(body),
        _ => Err(refusal(status, &body)),
    });
    if let Err(error) = &answered {
        tracing::debug!(relay = %relay.name, request.id = %id, target = target.as_str(), %error, "a relay was asked in vain");
    }
    answered
}

/// How long a body of up to so many bytes may take.
fn body_time(bytes_max: usize) -> Duration {
    Duration::from_secs(bytes_max.div_ceil(BODY_BYTES_PER_SECOND) as u64)
}

fn refusal(status: StatusCode, body: &[u8]) -> CallError {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let is_unrecognized = refusal.errcode.as_deref() == Some(ErrorCode::Unrecognized.as_str());
    match (status, refusal.now) {
        (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, Some(theirs)) => {
            CallError::Clock { theirs }
        }
        _ if is_about_the_endpoint(status) && is_unrecognized => CallError::Unknown,
        _ => CallError::Refused {
            status,
            errcode: refusal.errcode,
            text: kept(&refusal.error.unwrap_or_default()),
            retry_after: refusal.retry_after_ms.map(Duration::from_millis),
        },
    }
}

/// What is kept of a relay's text, which is shown in logs and on terminals.
fn kept(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn is_about_the_endpoint(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

/// The offset of a relay's clock from ours, milliseconds either way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClockOffset {
    ahead: Duration,
    behind: Duration,
}

impl ClockOffset {
    /// The offset of `theirs` from `ours`, if it is one that matters.
    pub(crate) fn between(ours: Timestamp, theirs: Timestamp) -> Self {
        let (ahead, behind) = (theirs.since(ours), ours.since(theirs));
        if ahead.max(behind) < CLOCK_TOLERANCE { Self::default() } else { Self { ahead, behind } }
    }

    /// Whether the clocks show the same.
    pub(crate) fn is_none(self) -> bool {
        self.ahead.is_zero() && self.behind.is_zero()
    }

    /// The relay's time.
    pub(crate) fn apply(self, ours: Timestamp) -> Timestamp {
        ours.after(self.ahead).before(self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_answer_has_the_time_that_it_takes_over_a_megabit_and_a_small_one_little() {
        let megabit = |bytes: usize| Duration::from_secs(bytes as u64 * 8) / 1_000_000;
        for bytes in [1, 100_000, 25_000_000] {
            let time = body_time(bytes);
            assert!(time > megabit(bytes) && time <= megabit(bytes) * 2 + Duration::from_secs(1));
        }
    }

    #[test]
    fn a_relays_text_is_taken_in_without_control_characters_and_not_at_any_length() {
        let body = serde_json::json!({ "error": format!("full\u{1b}[2J\r\n\u{9b}1m{}", "x".repeat(1000)) });
        let error = refusal(StatusCode::FORBIDDEN, body.to_string().as_bytes());
        let CallError::Refused { text, .. } = error else { panic!("{error}") };
        assert!(text.starts_with("full[2J1mxxx"), "{text:?}");
        assert_eq!(text.chars().count(), TEXT_CHARS_MAX);
    }
}
