//! The one place that maps refusals to HTTP.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_mailbox::{Full, StoreError};
use restante_relay_api::{FULL_MEMBER, Fullness};

use crate::memory::NoRoom;
use crate::metrics::Refused;

/// How long a caller should wait after a full disk or a busy store: an operator needs minutes, a queue seconds.
const DISK_FULL_RETRY: Duration = Duration::from_secs(300);
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// When to try a full mailbox again: its owner empties it when it comes online.
const MAILBOX_FULL_RETRY: Duration = Duration::from_secs(600);

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) MatrixError);

impl Refusal {
    /// 400: the request is not what the endpoint takes.
    pub(crate) fn bad(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(MatrixError::new(StatusCode::BAD_REQUEST, code, message))
    }

    /// 403: what the caller asks for is not given to it.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self(MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message))
    }

    /// 403: the caller may not do this. The same words whether or not there is such a mailbox.
    pub(crate) fn not_the_owner() -> Self {
        Self::forbidden("Only the server that a mailbox belongs to may collect from it")
    }

    /// 403: no mail for that mailbox from that origin. The same words whether there is no such mailbox, it is closed, or
    /// its owner does not want this origin's mail.
    pub(crate) fn unwelcome() -> Self {
        Self::forbidden("This relay takes no mail of this sender for that mailbox")
    }

    /// 403: the mail is not delivered onward. The same words for whatever reason.
    pub(crate) fn not_outgoing() -> Self {
        Self::forbidden(
            "This relay delivers onward only what servers that are registered here as outgoing leave themselves",
        )
    }

    /// 429: there is no room.
    pub(crate) fn full(full: Full) -> Self {
        let (full, retry) = match full {
            Full::Mailbox => (Fullness::Mailbox, MAILBOX_FULL_RETRY),
            Full::Share => (Fullness::Share, MAILBOX_FULL_RETRY),
            Full::Relay => (Fullness::Relay, DISK_FULL_RETRY),
        };
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        let error = MatrixError::new(too_many, ErrorCode::LimitExceeded, full.text());
        Self(error.retry_after(retry).detail(FULL_MEMBER, full.as_str()))
    }

    /// Whoever comes too often would otherwise fill the log as well.
    fn is_for_the_log(&self) -> bool {
        let Self(error) = self;
        error.code != ErrorCode::LimitExceeded || error.details.contains_key(FULL_MEMBER)
    }

    fn log(&self) {
        let Self(error) = self;
        let (status, errcode) = (error.status.as_u16(), error.code.as_str());
        if self.is_for_the_log() {
            tracing::info!(status, errcode, error = error.message, "request refused");
        } else {
            tracing::debug!(status, errcode, error = error.message, "request refused");
        }
    }
}

impl From<MatrixError> for Refusal {
    fn from(error: MatrixError) -> Self {
        Self(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let retry = match error {
            StoreError::DiskFull => DISK_FULL_RETRY,
            StoreError::Busy | StoreError::Unavailable(_) => BUSY_RETRY,
        };
        tracing::error!(error = &error as &dyn std::error::Error, "the store refused");
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let text = format!("{error}; nothing was stored, try again later");
        Self(MatrixError::new(unavailable, ErrorCode::Unknown, text).retry_after(retry))
    }
}

impl From<PathRejection> for Refusal {
    fn from(_: PathRejection) -> Self {
        Self::bad(ErrorCode::InvalidParam, "The path's parameters are not valid UTF-8")
    }
}

impl From<NoRoom> for Refusal {
    fn from(error: NoRoom) -> Self {
        let text = format!("{error}; try again later");
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        Self(MatrixError::new(unavailable, ErrorCode::Unknown, text).retry_after(BUSY_RETRY))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.log();
        let Self(error) = self;
        let mut response = json(error.status, error.to_json());
        response.extensions_mut().insert(Refused::of(&error));
        if let Some(wait) = error.retry_after {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, json)], body.into()).into_response()
}
