//! Gives each request a name, which stands in every log line about it and in its answer.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use restante_federation::Connection;
use restante_federation_proto::members;
use restante_relay_api::endpoints::REQUEST_ID_MEMBER;
use restante_relay_api::{REQUEST_ID_HEADER, RequestId};
use tracing::Instrument as _;

use crate::state::RelayState;

/// Of a path that is logged: our own have 60 characters beside a server name and a transaction id.
const PATH_CHARS_MAX: usize = 400;

/// Takes the caller's id for the request, or makes one up.
pub(crate) async fn name_request(
    State(relay): State<RelayState>,
    request: Request,
    next: Next,
) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| RequestId::of(relay.dice.number()));
    let client = request.extensions().get::<Connection>().map(|connection| connection.client);
    let span = tracing::info_span!(
        "request",
        request.id = id.as_str(),
        method = %request.method(),
        path = shortened(request.uri().path()),
        client.address = client.map(tracing::field::display),
    );
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}

fn given(headers: &HeaderMap) -> Option<RequestId> {
    headers.get(REQUEST_ID_HEADER)?.to_str().ok()?.parse().ok()
}

/// Paths are ASCII.
fn shortened(path: &str) -> &str {
    path.get(..PATH_CHARS_MAX).unwrap_or(path)
}

/// The name of a delivery, if its node gave it one, in the members that it added.
pub(crate) fn delivery_id(added: &[u8]) -> Option<RequestId> {
    let members = members(added).ok()?;
    let member = members.iter().find(|member| member.name == REQUEST_ID_MEMBER)?;
    serde_json::from_slice(member.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_has_the_name_that_its_node_gave_it() {
        let added = br#"{"org.restante.proof":{},"org.restante.request_id":"d-1"}"#;
        assert_eq!(delivery_id(added).unwrap().as_str(), "d-1");
        for none in [
            &b""[..],
            b"{}",
            br#"{"org.restante.request_id":"a b"}"#,
            br#"{"org.restante.request_id":7}"#,
        ] {
            assert_eq!(delivery_id(none), None);
        }
    }

    #[test]
    fn a_path_does_not_fill_the_log() {
        assert_eq!(shortened("/a"), "/a");
        assert_eq!(shortened(&"/".repeat(10_000)).len(), PATH_CHARS_MAX);
    }
}
