//! One exchange whose answer is small: read whole, with a limit and a deadline.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use restante_federation::{
    Body, BodyError, Exchange, ExchangeError, MatrixRefusal, Outcome, Patience, Peer,
    collect_limited, outcome,
};
use restante_relay_api::Fullness;

use crate::outbound::forwardable;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// What it means.
    pub(crate) fn outcome(&self) -> Outcome {
        outcome(self.status, &self.refusal(), self.retry_after())
    }

    /// The Matrix error that it is, as far as it is one.
    pub(crate) fn refusal(&self) -> MatrixRefusal {
        if self.status.is_success() {
            return MatrixRefusal::default();
        }
        MatrixRefusal::parse(&self.body)
    }

    /// The bound that a relay says was met, if it says so.
    pub(crate) fn full(&self) -> Option<Fullness> {
        let is_busy = self.status == StatusCode::TOO_MANY_REQUESTS;
        is_busy.then(|| Fullness::in_error(&self.body)).flatten()
    }

    /// Status and text, for logs and people.
    pub(crate) fn summary(&self) -> String {
        let refusal = self.refusal();
        let code = refusal.errcode.unwrap_or_else(|| "no Matrix error".to_owned());
        let text: String = refusal.error.unwrap_or_default().chars().take(TEXT_MAX).collect();
        format!("{} {code} {text}", self.status.as_u16()).trim_end().to_owned()
    }

    /// The answer as it is, for the homeserver, without what concerns the connection.
    pub(crate) fn into_response(self) -> axum::response::Response {
        let mut response = axum::response::Response::new(axum::body::Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = forwardable(&self.headers);
        response
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        seconds.trim().parse().ok().map(Duration::from_secs)
    }
}

/// Characters of a peer's error text that are repeated.
const TEXT_MAX: usize = 200;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
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
    pub(crate) fn text(&self) -> String {
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
pub(crate) async fn ask(
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
