//! Counts requests at the public door by what became of them.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_relay_api::FULL_MEMBER;
use restante_relay_api::endpoints::{COLLECT, RELAY_TXN};

use super::{Counted, ReasonLabel};

/// Why a request was refused; a refusal bears it on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused(&'static str);

impl Refused {
    /// All reasons.
    pub(super) const WORDS: [&'static str; 10] = [
        "full",
        "rate",
        "unauthorized",
        "forbidden",
        "bad_request",
        "too_large",
        "not_found",
        "method",
        "unavailable",
        "other",
    ];

    /// The reason that monitors count `error` by.
    pub(crate) fn of(error: &MatrixError) -> Self {
        Self(match (error.code, error.status) {
            (ErrorCode::LimitExceeded, _) if error.details.contains_key(FULL_MEMBER) => "full",
            (ErrorCode::LimitExceeded, _) => "rate",
            (_, StatusCode::METHOD_NOT_ALLOWED) => "method",
            (_, status) => reason(status),
        })
    }
}

fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        413 => "too_large",
        429 => "rate",
        500..=599 => "unavailable",
        _ => "other",
    }
}

/// Middleware around all routes.
pub(crate) async fn count(
    State(counted): State<Counted>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let is_collect = route.is_some_and(|route| route == COLLECT || route.starts_with(RELAY_TXN));
    let response = next.run(request).await;
    let status = response.status();
    if status.is_success() {
        counted.collects.inc_by(u64::from(is_collect));
        return response;
    }
    let given = response.extensions().get::<Refused>().map(|refused| refused.0);
    let reason = given.unwrap_or_else(|| reason(status));
    counted.refused.get_or_create(&ReasonLabel { reason }).inc();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_one_of_the_reasons_that_are_exported() {
        for status in 300..600 {
            let status = StatusCode::from_u16(status).unwrap();
            for code in [ErrorCode::LimitExceeded, ErrorCode::Forbidden, ErrorCode::Unknown] {
                let Refused(word) = Refused::of(&MatrixError::new(status, code, "no"));
                assert!(Refused::WORDS.contains(&word), "{status} {word}");
            }
        }
        let full = MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, "no");
        assert_eq!(Refused::of(&full).0, "rate");
        assert_eq!(Refused::of(&full.detail(FULL_MEMBER, "mailbox")).0, "full");
    }
}
