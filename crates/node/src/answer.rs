//! What the node makes of answers beside what they mean.

use http::StatusCode;
use restante_federation::Answer;
use restante_relay_api::Fullness;

use crate::outbound::forwardable;

/// The bound that a relay says was met, if it says so.
pub(crate) fn full(answer: &Answer) -> Option<Fullness> {
    let is_busy = answer.status == StatusCode::TOO_MANY_REQUESTS;
    is_busy.then(|| Fullness::in_error(&answer.body)).flatten()
}

/// The answer as it is, for the homeserver, without what concerns the connection.
pub(crate) fn for_homeserver(answer: Answer) -> axum::response::Response {
    let mut response = axum::response::Response::new(axum::body::Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = forwardable(&answer.headers);
    response
}
