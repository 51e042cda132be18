//! Lets those through who hold the token.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use restante_federation_proto::{ErrorCode, MatrixError};

use crate::answer::Refusal;
use crate::token::Token;

/// Middleware in front of all that needs the token.
pub(crate) async fn authenticate(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    if bearer(request.headers()).is_some_and(|given| token.matches(given)) {
        return next.run(request).await;
    }
    let text =
        "Send the token from the file admin-token in the data folder as Authorization: Bearer";
    let error = MatrixError::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, text);
    let mut response = Refusal(error).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The name of the scheme is not case-sensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
