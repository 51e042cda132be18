//! Calls a destination by the name that an origin gave it, which is a stranger's word, and says what its answer means.
//!
//! The answer decides what becomes of the only copy that there may be. So nothing counts that only looks like a homeserver's: a parked domain
//! answers 200 to everything, and what stands before a homeserver that is away answers 403.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use restante_federation::{Answer, Body, Outcome, Patience, Peer, ask, empty};
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::VERSION;
use serde_json::Value;

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

/// Sends a transaction.
pub(super) async fn send(
    relay: &RelayState,
    destination: &ServerName,
    request: Request<Body>,
) -> Result<Answer, String> {
    ask_stranger(relay, destination, request, (PATIENCE, ANSWER_BYTES_MAX)).await
}

/// Whether a Matrix server answers there; else why it is thought that none does.
pub(super) async fn probe(relay: &RelayState, destination: &ServerName) -> Result<(), String> {
    let mut request = Request::new(empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = VERSION.parse().expect("the path is printable ASCII");
    let bounds = (PROBE_PATIENCE, PROBE_ANSWER_BYTES_MAX);
    let answer = ask_stranger(relay, destination, request, bounds).await?;
    match is_matrix_servers(&answer) {
        true => Ok(()),
        false => Err(format!("no Matrix server: {}", answer.summary())),
    }
}

async fn ask_stranger(
    relay: &RelayState,
    destination: &ServerName,
    request: Request<Body>,
    (patience, answer_bytes_max): (Patience, usize),
) -> Result<Answer, String> {
    let peer = Peer::of_stranger(destination.clone(), None);
    let answer = ask(&*relay.exchange, &peer, request, patience, answer_bytes_max).await;
    answer.map_err(|error| error.text())
}

/// What an answer means for the transaction that it answers.
pub(super) fn means(answer: &Answer) -> Means {
    match answer.outcome() {
        // Server-server API, `PUT /send`: "pdus" has an entry for each event that was not taken, and is required.
        Outcome::Delivered if object(answer).is_some_and(|body| body["pdus"].is_object()) => {
            Means::Taken
        }
        Outcome::Busy { retry_after } => Means::Busy { retry_after },
        // Dendrite says so without a code.
        Outcome::Permanent
            if answer.status == StatusCode::UNAUTHORIZED && object(answer).is_some() =>
        {
            Means::Unverified
        }
        Outcome::Permanent if is_of_matrix(answer) => Means::Refused,
        Outcome::Delivered | Outcome::Permanent | Outcome::Temporary => Means::Nothing,
    }
}

/// Whether it is an error that a Matrix server wrote.
pub(super) fn is_of_matrix(answer: &Answer) -> bool {
    answer.refusal().errcode.is_some()
}

fn is_matrix_servers(answer: &Answer) -> bool {
    match answer.status.is_success() {
        true => object(answer).is_some(),
        false => is_of_matrix(answer) && !answer.status.is_server_error(),
    }
}

fn object(answer: &Answer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        Answer { status, headers, body: Bytes::from_static(body.as_bytes()) }
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
            assert_eq!(means(&answer(status, body)), expected, "{status} {body}");
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
            assert_eq!(is_matrix_servers(&answer(status, body)), expected, "{status} {body}");
        }
    }
}
