//! What a destination's answer to `/send` says of the events, and what the homeserver hears of it.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use restante_federation::Answer;

use super::SENT;
use crate::answer;
use crate::outbound::json_response;

/// The events that the destination did not take, with what it said of each.
pub(super) fn errors(answer: &Answer) -> BTreeMap<String, String> {
    #[derive(serde::Deserialize)]
    struct Taken {
        pdus: BTreeMap<String, Pdu>,
    }
    #[derive(serde::Deserialize)]
    struct Pdu {
        error: Option<serde_json::Value>,
    }
    let taken = serde_json::from_slice::<Taken>(&answer.body).map(|taken| taken.pdus);
    let each = taken.unwrap_or_default().into_iter();
    each.filter_map(|(event_id, pdu)| {
        let error = pdu.error?;
        Some((event_id, error.as_str().map_or_else(|| error.to_string(), str::to_owned)))
    })
    .collect()
}

/// The destination's own answer; Synapse can't read one that is no object, as Go servers send it.
pub(super) fn sent(answer: Answer) -> Response {
    if answer.body.trim_ascii_start().starts_with(b"{") {
        return answer::for_homeserver(answer);
    }
    json_response(StatusCode::OK, SENT)
}
