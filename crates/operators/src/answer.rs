//! Answers of the operators' door: JSON, and refusals as Matrix errors.

use axum::extract::Request;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use restante_federation::{BodyError, collect_limited};
use restante_federation_proto::{ErrorCode, MatrixError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A refusal on its way to the operator.
#[derive(Debug)]
pub struct Refusal(pub MatrixError);

/// 400: the request is not what the endpoint takes.
pub fn bad_request(text: impl Into<String>) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text)
}

/// 404: what the request names is not there.
pub fn not_found(text: impl Into<String>) -> Refusal {
    refusal(StatusCode::NOT_FOUND, ErrorCode::NotFound, text)
}

/// 409: it can't be done as things stand.
pub fn conflict(text: impl Into<String>) -> Refusal {
    refusal(StatusCode::CONFLICT, ErrorCode::Unknown, text)
}

/// 503: a store refused, and nothing was changed.
pub fn unavailable(error: impl std::error::Error + 'static) -> Refusal {
    tracing::error!(error = &error as &dyn std::error::Error, "a store refused the operator");
    let text = format!("Nothing was changed: {error}");
    refusal(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text)
}

/// 503: a store refused what goes in steps, of which some may be done.
pub fn stopped_on_the_way(error: impl std::error::Error + 'static) -> Refusal {
    tracing::error!(error = &error as &dyn std::error::Error, "a store refused the operator");
    let text = format!("It stopped on the way, and what was done stays done; try again: {error}");
    refusal(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, text)
}

/// 200 with an empty object.
pub fn done() -> Response {
    json(StatusCode::OK, b"{}".to_vec())
}

/// 200 with the JSON of `body`.
pub fn shown(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("structs of texts, numbers and JSON are JSON");
    json(StatusCode::OK, body)
}

/// An answer whose body is JSON.
pub fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, json)], body.into()).into_response()
}

/// Reads a body of at most `bytes_max` that is JSON; an empty one counts as `{}`.
pub async fn json_body<T: DeserializeOwned>(
    request: Request,
    bytes_max: usize,
) -> Result<T, Refusal> {
    let body = collect_limited(request.into_body(), bytes_max).await?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(text).map_err(|error| bad_request(format!("The body: {error}")))
}

fn refusal(status: StatusCode, code: ErrorCode, text: impl Into<String>) -> Refusal {
    Refusal(MatrixError::new(status, code, text))
}

impl From<MatrixError> for Refusal {
    fn from(error: MatrixError) -> Self {
        Self(error)
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        bad_request(error.to_string())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        bad_request(rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.0.status, self.0.to_json())
    }
}
