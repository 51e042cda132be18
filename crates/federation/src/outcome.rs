//! Decides what a homeserver's answer to `/send` means for a transaction.
//!
//! Pure. The status decides, and for some statuses whether a Matrix server said it: what an error page of a proxy
//! says is not the word of the homeserver behind it.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

/// Wait before repeating what a busy server turned away without saying for how long.
const BUSY_WAIT_DEFAULT: Duration = Duration::from_secs(1);

/// What became of an attempt that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took it.
    Delivered,
    /// The destination is alive and wants to be left alone for a while.
    Busy {
        /// For how long.
        retry_after: Duration,
    },
    /// The destination, or what stands before it, does not work at present.
    Temporary,
    /// The destination refused it, and would again.
    Permanent,
}

/// What a Matrix error says, as far as it is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MatrixRefusal {
    /// The code; `None` when no Matrix server wrote this.
    pub errcode: Option<String>,
    /// The text.
    pub error: Option<String>,
    /// When to come again.
    pub retry_after_ms: Option<u64>,
}

impl MatrixRefusal {
    /// Reads an error's body; what is not a Matrix error says nothing.
    pub fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

/// What `status` with the error `refusal` means. `retry_after` is the header's word.
pub fn outcome(
    status: StatusCode,
    refusal: &MatrixRefusal,
    retry_after: Option<Duration>,
) -> Outcome {
    match status.as_u16() {
        200..300 => Outcome::Delivered,
        429 => {
            let said = refusal.retry_after_ms.map(Duration::from_millis).or(retry_after);
            Outcome::Busy { retry_after: said.unwrap_or(BUSY_WAIT_DEFAULT) }
        }
        // Redirects come from captive portals and parked domains: no Matrix server sends one here.
        408 | 300..400 | 500.. => Outcome::Temporary,
        404 if refusal.errcode.is_none() => Outcome::Temporary,
        _ => Outcome::Permanent,
    }
}

/// Whether a refusal is about what is in the transaction, so that the same is refused whenever it comes. What concerns keys
/// and permissions passes: the destination may lack our key for a moment, and a page is not its word.
pub fn is_about_content(refusal: &MatrixRefusal) -> bool {
    let codes = ["M_TOO_LARGE", "M_BAD_JSON", "M_NOT_JSON"];
    refusal.errcode.as_deref().is_some_and(|code| codes.contains(&code))
}

/// Whether an answer shows that a Matrix server is up.
pub fn is_sign_of_life(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Delivered | Outcome::Busy { .. } | Outcome::Permanent => true,
        Outcome::Temporary => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        outcome(status, &MatrixRefusal::parse(body.as_bytes()), Some(Duration::from_secs(7)))
    }

    #[test]
    fn statuses_mean_what_the_facts_say() {
        let matrix = r#"{"errcode":"M_X","error":"no"}"#;
        for (status, body, expected) in [
            (200, "null", Outcome::Delivered),
            (202, "", Outcome::Delivered),
            (400, matrix, Outcome::Permanent),
            (401, r#"{"message":"bad signature"}"#, Outcome::Permanent),
            (403, "", Outcome::Permanent),
            (404, matrix, Outcome::Permanent),
            (404, "<html>", Outcome::Temporary),
            (404, r#"{"error":"no"}"#, Outcome::Temporary),
            (302, "", Outcome::Temporary),
            (408, "", Outcome::Temporary),
            (500, matrix, Outcome::Temporary),
            (502, "<html>", Outcome::Temporary),
            (599, "", Outcome::Temporary),
            (999, "", Outcome::Temporary),
        ] {
            assert_eq!(of(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_busy_server_says_when_to_come_again() {
        let busy = |seconds| Outcome::Busy { retry_after: Duration::from_secs(seconds) };
        assert_eq!(of(429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2000}"#), busy(2));
        assert_eq!(of(429, "slow down"), busy(7));
        let silent = outcome(StatusCode::TOO_MANY_REQUESTS, &MatrixRefusal::default(), None);
        assert_eq!(silent, Outcome::Busy { retry_after: BUSY_WAIT_DEFAULT });
    }

    #[test]
    fn only_what_concerns_the_content_is_refused_for_good() {
        let about = |body: &str| is_about_content(&MatrixRefusal::parse(body.as_bytes()));
        assert!(about(r#"{"errcode":"M_TOO_LARGE"}"#) && about(r#"{"errcode":"M_BAD_JSON"}"#));
        for body in ["<html>", r#"{"errcode":"M_FORBIDDEN"}"#, r#"{"errcode":"M_UNAUTHORIZED"}"#] {
            assert!(!about(body), "{body}");
        }
    }

    #[test]
    fn only_a_matrix_server_shows_life() {
        assert!(is_sign_of_life(of(403, "{}")) && is_sign_of_life(of(429, "{}")));
        assert!(!is_sign_of_life(of(502, "{}")) && !is_sign_of_life(of(404, "<html>")));
    }
}
