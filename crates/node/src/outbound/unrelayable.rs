//! Decides what the homeserver hears when it asks a server that is offline something that only that server knows.
//!
//! Pure. The answers are those after which a homeserver goes on sending at once: 5xx, 429 and 401 make Synapse
//! back off from the whole server for ten minutes and more, transactions included.

use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, ServerName, unescape_path_segment};

/// An answer in the place of one that can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StandIn {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its JSON.
    pub(crate) body: Vec<u8>,
}

impl From<MatrixError> for StandIn {
    fn from(error: MatrixError) -> Self {
        Self { status: error.status, body: error.to_json() }
    }
}

/// The answer to a request for `target` at `destination`, which is offline.
pub(crate) fn stand_in(target: &str, destination: &ServerName) -> StandIn {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let segments: Vec<String> =
        path.split('/').map(|segment| unescape_path_segment(segment).unwrap_or_default()).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["", "_matrix", "federation", _, "make_join" | "make_knock" | "make_leave", ..] => {
            // Synapse gives up on most 4xx without asking the other servers of its list; this one moves on.
            let text = format!("{destination} is offline and can't help with this room");
            error(StatusCode::NOT_FOUND, ErrorCode::NotFound, text)
        }
        ["", "_matrix", "federation", .., "hierarchy" | "timestamp_to_event", _] => {
            let text = format!("{destination} is offline");
            error(StatusCode::NOT_FOUND, ErrorCode::Unrecognized, text)
        }
        // The whole gap or none of it: a part would leave the room damaged, an empty list leaves no mark.
        ["", "_matrix", "federation", _, "get_missing_events", _] => {
            StandIn { status: StatusCode::OK, body: br#"{"events":[]}"#.to_vec() }
        }
        ["", "_matrix", "key", ..] => {
            let text = format!("{destination} is offline, and its keys are not known here");
            error(StatusCode::NOT_FOUND, ErrorCode::NotFound, text)
        }
        _ => {
            let text = format!(
                "{destination} is offline. Messages reach it by relay; this request can only be answered when it is back."
            );
            error(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text)
        }
    }
}

fn error(status: StatusCode, code: ErrorCode, text: String) -> StandIn {
    MatrixError::new(status, code, text).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(target: &str) -> (u16, String) {
        let answer = stand_in(target, &"b.test".parse().unwrap());
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), body["errcode"].as_str().unwrap_or("").to_owned())
    }

    #[test]
    fn every_call_gets_the_answer_that_does_not_make_the_homeserver_back_off() {
        for (target, status, errcode) in [
            ("/_matrix/federation/v1/make_join/!r:b.test/@u:a.test?ver=12", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v1/make_join/%21r%3Ab.test/%40u%3Aa.test", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v1/make%5Fjoin/!r/@u", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v1/make_knock/!r/@u", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v1/make_leave/!r/@u", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v1/hierarchy/!r?suggested_only=true", 404, "M_UNRECOGNIZED"),
            ("/_matrix/federation/unstable/org.matrix.msc2946/hierarchy/!r", 404, "M_UNRECOGNIZED"),
            ("/_matrix/federation/v1/timestamp_to_event/!r?ts=1&dir=f", 404, "M_UNRECOGNIZED"),
            ("/_matrix/federation/v1/get_missing_events/!r%2F", 200, ""),
            ("/_matrix/key/v2/query", 404, "M_NOT_FOUND"),
            ("/_matrix/federation/v2/invite/!r/$e", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v1/query/profile?user_id=@u:b.test", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v1/query/directory?room_alias=%23x:b.test", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v1/user/keys/query", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v2/send_join/!r/$e", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v1/state_ids/!r?event_id=$hierarchy", 403, "M_FORBIDDEN"),
            ("/_matrix/federation/v1/event/hierarchy%2Fx", 403, "M_FORBIDDEN"),
            ("/", 403, "M_FORBIDDEN"),
        ] {
            assert_eq!(answer(target), (status, errcode.to_owned()), "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_target_makes_the_homeserver_back_off(target in "/[!-~]{0,60}") {
            prop_assert!(matches!(answer(&target).0, 200 | 403 | 404));
        }
    }
}
