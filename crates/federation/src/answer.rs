//! One exchange whose answer is small: read whole, with a limit and a deadline.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};

use crate::body::{Body, BodyError, collect_limited};
use crate::exchange::{Exchange, ExchangeError, Patience, Peer};
use crate::outcome::{MatrixRefusal, Outcome, outcome};

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// What it means. A page says nothing was taken, whatever its status: parked domains answer 200 to everything.
    pub fn outcome(&self) -> Outcome {
        match outcome(self.status, &self.refusal(), self.retry_after()) {
            Outcome::Delivered if self.is_page() => Outcome::Temporary,
            outcome => outcome,
        }
    }

    /// No JSON begins so. Some relays answer nothing.
    fn is_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Whether a homeserver may have written it in answer to a transaction: an object, or `null`, as Go servers do. Whatever stands
    /// at the name of a server that has gone answers 200 with anything.
    pub fn is_of_homeserver(&self) -> bool {
        let body = self.body.trim_ascii();
        body == b"null" || (body.starts_with(b"{") && body.ends_with(b"}"))
    }

    /// The Matrix error that it is, as far as it is one.
    pub fn refusal(&self) -> MatrixRefusal {
        if self.status.is_success() {
            return MatrixRefusal::default();
        }
        MatrixRefusal::parse(&self.body)
    }

    /// Status and text, for logs and people.
    pub fn summary(&self) -> String {
        let refusal = self.refusal();
        let code = refusal.errcode.unwrap_or_else(|| "no Matrix error".to_owned());
        let said = format!("{code} {}", refusal.error.unwrap_or_default());
        let printable = said.chars().filter(|character| !character.is_control());
        let text: String = printable.take(TEXT_CHARS_MAX).collect();
        format!("{} {text}", self.status.as_u16()).trim_end().to_owned()
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        seconds.trim().parse().ok().map(Duration::from_secs)
    }
}

/// Characters of a peer's error that are repeated.
const TEXT_CHARS_MAX: usize = 200;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The answer's body is too long or broke off.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The answer's body did not end in time.
    #[error("the answer did not end in time")]
    Slow,
}

impl AskError {
    /// The error with its causes, for people.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            let next_text = next.to_string();
            if !text.ends_with(&next_text) {
                text = format!("{text}: {next_text}");
            }
            cause = next.source();
        }
        text
    }
}

/// Sends `request` and reads the answer of at most `bytes_max`; the patience bounds the body as well.
pub async fn ask(
    exchange: &dyn Exchange,
    peer: &Peer,
    request: Request<Body>,
    patience: Patience,
    bytes_max: usize,
) -> Result<Answer, AskError> {
    let whole = async {
        let (head, body) = exchange.exchange(peer, request, patience).await?.into_parts();
        let body = collect_limited(body, bytes_max).await?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    let deadline = patience.connect.saturating_add(patience.answer);
    tokio::time::timeout(deadline, whole).await.unwrap_or(Err(AskError::Slow))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, " 7 ".parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body }
    }

    #[test]
    fn an_answer_says_when_to_come_again_by_its_header_too() {
        let busy = |seconds| Outcome::Busy { retry_after: Duration::from_secs(seconds) };
        assert_eq!(answer("slow down").outcome(), busy(7));
        assert_eq!(answer(r#"{"retry_after_ms":3000}"#).outcome(), busy(3));
    }

    #[test]
    fn what_a_peer_says_is_repeated_without_control_characters_and_not_at_any_length() {
        let said = format!(r#"{{"errcode":"M_X","error":"no\u001b[2J\n{}"}}"#, "x".repeat(1000));
        let summary = answer(&said).summary();
        assert!(summary.starts_with("429 M_X no[2Jxx"), "{summary}");
        assert_eq!(summary.chars().count(), "429 ".len() + TEXT_CHARS_MAX);
        assert_eq!(answer("<html>").summary(), "429 no Matrix error");
    }
}
