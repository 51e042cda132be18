//! Calls a destination by the name that an origin gave it, which is a stranger's word, and says what its answer means.
//!
//! The answer decides what becomes of the only copy that there may be. So nothing counts that only looks like a homeserver's: a parked domain
//! answers 200 to everything, and what stands before a homeserver that is away answers 403.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, Request, StatusCode};
use restante_federation::{
    Body, MatrixRefusal, Outcome, Patience, Peer, collect_limited, empty, outcome,
};
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::VERSION;
use serde_json::Value;
use tokio::time::timeout;

use crate::state::RelayState;

/// How long a connection may take.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// How long a destination may take: a stock homeserver works on what it takes before it answers.
const PATIENCE: Patience = Patience { connect: CONNECT_WAIT, answer: Duration::from_secs(60) };

/// How long it may take to say who it is.
const PROBE_PATIENCE: Patience =
    Patience { connect: CONNECT_WAIT, answer: Duration::from_secs(10) };

/// Bytes of an answer: an entry for each of 50 PDUs, with an error text.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of an answer to a probe: a name and a version.
const PROBE_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Characters of a destination's text that are logged.
const TEXT_CHARS_MAX: usize = 200;

/// What an answer to a transaction means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// The homeserver took it.
    Taken,
    /// It wants to be left alone for a while.
    Busy { retry_after: Duration },
    /// It can't check the origin's signature now.
    Unverified,
    /// It refused it, and would again.
    Refused,
    /// It is not a homeserver's word, or not its last one.
    Nothing,
}

/// What the destination said.
pub(super) struct Answer {
    status: StatusCode,
    body: Bytes,
    refusal: MatrixRefusal,
    retry_after: Option<Duration>,
}

/// Sends a transaction.
pub(super) async fn send(
    relay: &RelayState,
    destination: &ServerName,
    request: Request<Body>,
) -> Result<Answer, String> {
    ask(relay, destination, request, PATIENCE, ANSWER_BYTES_MAX).await
}

/// Whether a Matrix server answers there; else why it is thought that none does.
pub(super) async fn probe(relay: &RelayState, destination: &ServerName) -> Result<(), String> {
    let mut request = Request::new(empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = VERSION.parse().expect("the path is printable ASCII");
    let answer = ask(relay, destination, request, PROBE_PATIENCE, PROBE_ANSWER_BYTES_MAX).await?;
    match answer.is_matrix_servers() {
        true => Ok(()),
        false => Err(format!("no Matrix server: {}", answer.summary())),
    }
}

async fn ask(
    relay: &RelayState,
    destination: &ServerName,
    request: Request<Body>,
    patience: Patience,
    answer_bytes_max: usize,
) -> Result<Answer, String> {
    let peer = Peer::of_stranger(destination.clone(), None);
    let whole = async {
        let answered = relay.exchange.exchange(&peer, request, patience).await;
        let (head, body) = answered.map_err(|error| error.to_string())?.into_parts();
        let body = collect_limited(body, answer_bytes_max).await;
        let body = body.map_err(|error| error.to_string())?;
        let retry_after = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs));
        Ok(Answer::of(head.status, body, retry_after))
    };
    let deadline = patience.connect + patience.answer;
    timeout(deadline, whole).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

impl Answer {
    fn of(status: StatusCode, body: Bytes, retry_after: Option<Duration>) -> Self {
        let refusal = match status.is_success() {
            true => MatrixRefusal::default(),
            false => MatrixRefusal::parse(&body),
        };
        Self { status, body, refusal, retry_after }
    }

    /// What it means for the transaction that it answers.
    pub(super) fn means(&self) -> Means {
        match outcome(self.status, &self.refusal, self.retry_after) {
            // Server-server API, `PUT /send`: "pdus" has an entry for each event that was not taken, and is required.
            Outcome::Delivered if self.object().is_some_and(|body| body["pdus"].is_object()) => {
                Means::Taken
            }
            Outcome::Busy { retry_after } => Means::Busy { retry_after },
            // Dendrite says so without a code.
            Outcome::Permanent
                if self.status == StatusCode::UNAUTHORIZED && self.object().is_some() =>
            {
                Means::Unverified
            }
            Outcome::Permanent if self.is_of_matrix() => Means::Refused,
            Outcome::Delivered | Outcome::Permanent | Outcome::Temporary => Means::Nothing,
        }
    }

    /// Whether it is an error that a Matrix server wrote.
    pub(super) fn is_of_matrix(&self) -> bool {
        self.refusal.errcode.is_some()
    }

    fn is_matrix_servers(&self) -> bool {
        match self.status.is_success() {
            true => self.object().is_some(),
            false => self.is_of_matrix() && !self.status.is_server_error(),
        }
    }

    fn object(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok().filter(Value::is_object)
    }

    /// What to log of it.
    pub(super) fn summary(&self) -> String {
        let code = self.refusal.errcode.as_deref().unwrap_or("no Matrix error");
        let text = self.refusal.error.as_deref().unwrap_or_default();
        let printable = format!("{code} {text}");
        let printable = printable.chars().filter(|character| !character.is_control());
        let text: String = printable.take(TEXT_CHARS_MAX).collect();
        format!("{} {text}", self.status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer::of(StatusCode::from_u16(status).unwrap(), Bytes::from_static(body.as_bytes()), None)
    }

    #[test]
    fn only_what_a_homeserver_says_decides_what_becomes_of_mail() {
        let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
        let busy = Means::Busy { retry_after: Duration::from_secs(1) };
        for (status, body, expected) in [
            (200, r#"{"pdus":{}}"#, Means::Taken),
            (200, r#"{"pdus":{"$a":{"error":"no"}}}"#, Means::Taken),
            (200, "<html>welcome", Means::Nothing),
            (200, "{}", Means::Nothing),
            (202, "", Means::Nothing),
            (200, r#"{"pdus":[]}"#, Means::Nothing),
            (403, refusal, Means::Refused),
            (403, "<html>forbidden", Means::Nothing),
            (400, "{}", Means::Nothing),
            (413, "", Means::Nothing),
            (404, "", Means::Nothing),
            (401, r#"{"errcode":"M_UNAUTHORIZED"}"#, Means::Unverified),
            (401, r#"{"message":"bad signature"}"#, Means::Unverified),
            (401, "<html>log in", Means::Nothing),
            (429, "", busy),
            (500, refusal, Means::Nothing),
            (301, "", Means::Nothing),
        ] {
            assert_eq!(answer(status, body).means(), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_site_that_answers_everything_is_no_matrix_server() {
        for (status, body, expected) in [
            (200, r#"{"server":{"name":"x"}}"#, true),
            (404, r#"{"errcode":"M_UNRECOGNIZED"}"#, true),
            (200, "<html>", false),
            (403, "<html>", false),
            (502, r#"{"errcode":"M_UNKNOWN"}"#, false),
        ] {
            assert_eq!(answer(status, body).is_matrix_servers(), expected, "{status} {body}");
        }
    }
}
