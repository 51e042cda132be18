//! The Matrix error: what every refusal of ours looks like on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// The error codes in use here (client-server API, "Standard error response"; server-server API).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// `M_BAD_JSON`: JSON, but not what the endpoint takes.
    BadJson,
    /// `M_NOT_JSON`: not JSON.
    NotJson,
    /// `M_FORBIDDEN`.
    Forbidden,
    /// `M_UNAUTHORIZED`: the request's signature is missing or wrong.
    Unauthorized,
    /// `M_INVALID_PARAM`: a parameter's value is of the wrong form.
    InvalidParam,
    /// `M_MISSING_PARAM`.
    MissingParam,
    /// `M_NOT_FOUND`.
    NotFound,
    /// `M_UNRECOGNIZED`: no such endpoint.
    Unrecognized,
    /// `M_TOO_LARGE`.
    TooLarge,
    /// `M_LIMIT_EXCEEDED`.
    LimitExceeded,
    /// `M_UNKNOWN`: an error of our own.
    Unknown,
}

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "M_BAD_JSON",
            Self::NotJson => "M_NOT_JSON",
            Self::Forbidden => "M_FORBIDDEN",
            Self::Unauthorized => "M_UNAUTHORIZED",
            Self::InvalidParam => "M_INVALID_PARAM",
            Self::MissingParam => "M_MISSING_PARAM",
            Self::NotFound => "M_NOT_FOUND",
            Self::Unrecognized => "M_UNRECOGNIZED",
            Self::TooLarge => "M_TOO_LARGE",
            Self::LimitExceeded => "M_LIMIT_EXCEEDED",
            Self::Unknown => "M_UNKNOWN",
        }
    }
}

/// A refusal: status, code, a text for a person, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {message}", status.as_u16(), code.as_str())]
pub struct MatrixError {
    /// HTTP status.
    pub status: StatusCode,
    /// Matrix error code.
    pub code: ErrorCode,
    /// What happened and what to do next.
    pub message: String,
    /// When the same request may succeed, for what is temporary.
    pub retry_after: Option<Duration>,
    /// What a program reads beside the code, by member name.
    pub details: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
struct Wire<'a> {
    errcode: &'a str,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(flatten)]
    details: &'a BTreeMap<&'static str, Value>,
}

impl MatrixError {
    /// A refusal with no word on retrying.
    pub fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, details: BTreeMap::new() }
    }

    /// The same refusal, with the time after which to retry.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same refusal, with a further member for programs.
    pub fn detail(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.insert(name, value.into());
        self
    }

    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        let retry_after_ms =
            self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let wire = Wire {
            errcode: self.code.as_str(),
            error: &self.message,
            retry_after_ms,
            details: &self.details,
        };
        serde_json::to_vec(&wire).expect("strings, a number and JSON values are always JSON")
    }
}
