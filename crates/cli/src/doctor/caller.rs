//! Calls of a doctor: to one server, in one name.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use restante_federation::{
    Body, Exchange as _, FederationClient, Identity, Patience, Peer, collect_limited, empty,
    signed_request,
};
use restante_federation_proto::RequestTarget;
use serde_json::Value;

/// Answers of a relay hold up to one body of 16 MiB and what belongs to it.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A large deposit over a home line takes its time.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(15), answer: Duration::from_secs(90) };

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// One server, as it is called.
pub(super) struct Callee<'a> {
    pub(super) client: &'a FederationClient,
    pub(super) peer: Peer,
}

impl Callee<'_> {
    /// `GET` without a signature.
    pub(super) async fn get(&self, target: &str) -> Result<Answer, String> {
        let request = Request::get(target).body(empty()).map_err(|error| error.to_string())?;
        self.exchange(request).await
    }

    /// `POST` of JSON without a signature.
    pub(super) async fn post(&self, target: &str, body: Vec<u8>) -> Result<Answer, String> {
        let request = Request::post(target)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(restante_federation::full(body))
            .map_err(|error| error.to_string())?;
        self.exchange(request).await
    }

    /// A request signed by `identity`; `content` is canonical JSON.
    pub(super) async fn signed(
        &self,
        identity: &Identity,
        method: Method,
        target: &RequestTarget,
        content: Vec<u8>,
    ) -> Result<Answer, String> {
        let content = Some(Bytes::from(content));
        self.exchange(signed_request(identity, method, target, &self.peer.name, content)).await
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, String> {
        let answered = self.client.exchange(&self.peer, request, PATIENCE).await;
        let (head, body) = answered.map_err(|error| with_causes(&error))?.into_parts();
        let body = collect_limited(body, ANSWER_BYTES_MAX).await;
        let body =
            body.map_err(|error| format!("the answer broke off: {}", with_causes(&error)))?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    /// The body as JSON; null for anything else.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Status and what the server says, or that it is not a Matrix server which says it.
    pub(super) fn refusal(&self) -> String {
        let json = self.json();
        match (json["errcode"].as_str(), json["error"].as_str()) {
            (Some(code), Some(error)) => format!("{} {code}: {error}", self.status.as_u16()),
            _ => {
                let server = self.headers.get(http::header::SERVER);
                let server = server.and_then(|name| name.to_str().ok());
                let server = server.map_or_else(String::new, |name| format!(" (from {name})"));
                format!(
                    "{} without a Matrix error{server}: what is in front of the server answers",
                    self.status
                )
            }
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
