//! Lets those through who hold the token, or another one that counts.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use restante_federation_proto::{ErrorCode, MatrixError};

use crate::answer::Refusal;
use crate::token::Token;

/// Tokens of others that open a part of the admin API.
#[async_trait]
pub trait OtherTokens: Send + Sync + 'static {
    /// Whether `token` opens `path`, which is below the base.
    async fn admit(&self, path: &str, token: &str) -> Admission;
}

/// What a token is good for.
#[derive(Debug)]
pub enum Admission {
    /// The request goes on.
    Admitted,
    /// It opens nothing here.
    Unknown,
    /// It does not open this, or nobody can say now; the answer says why.
    Refused(Refusal),
}

/// Who is let through.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) token: Token,
    pub(crate) others: Option<Arc<dyn OtherTokens>>,
}

/// Middleware in front of all that needs the token.
pub(crate) async fn authenticate(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Response {
    let given = bearer(request.headers());
    if given.is_some_and(|given| gate.token.matches(given)) {
        return next.run(request).await;
    }
    if let (Some(others), Some(given)) = (&gate.others, given) {
        let (path, given) = (request.uri().path().to_owned(), given.to_owned());
        match others.admit(&path, &given).await {
            Admission::Admitted => return next.run(request).await,
            Admission::Refused(refusal) => return refusal.into_response(),
            Admission::Unknown => {}
        }
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
