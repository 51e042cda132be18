//! Answers the homeserver's questions for events to a server that is offline, from events that are held here.
//!
//! The homeserver's own limit on missing events is ignored: a gap is closed by one whole answer or not at all.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use restante_federation_proto::ServerName;
use serde::Deserialize;

use super::json_response;
use crate::site::Site;

/// Bytes of a question for missing events: some thousand event ids.
pub(super) const QUESTION_BYTES_MAX: usize = 256 * 1024;

/// Events that a question may name on either side.
const NAMED_EVENTS_MAX: usize = 2000;

/// What lies between these is asked for.
#[derive(Deserialize)]
struct Question {
    earliest_events: Vec<String>,
    latest_events: Vec<String>,
}

/// The whole gap that `question` asks for; `None` if it is not held.
pub(super) async fn missing_events(
    site: &Site,
    room_id: &str,
    question: &[u8],
) -> Option<Response> {
    let question: Question = serde_json::from_slice(question).ok()?;
    let Question { earliest_events: earliest, latest_events: latest } = question;
    if earliest.len() > NAMED_EVENTS_MAX || latest.len() > NAMED_EVENTS_MAX {
        return None;
    }
    let gap = site.stand_in.whole_gap(room_id, &earliest, &latest).await?;
    tracing::info!(room_id, events = gap.len(), "answered the homeserver from what is held");
    Some(json_response(StatusCode::OK, list(b"{\"events\":", &gap, b"}")))
}

/// The event as `origin` would give it; `None` if it is not held.
pub(super) async fn event(site: &Site, origin: &ServerName, event_id: &str) -> Option<Response> {
    let event = site.stand_in.event(event_id).await?;
    let head = format!(
        r#"{{"origin":"{origin}","origin_server_ts":{},"pdus":"#,
        site.clock.now().as_millis()
    );
    Some(json_response(StatusCode::OK, list(head.as_bytes(), &[event.pdu], b"}")))
}

fn list(head: &[u8], items: &[Bytes], tail: &[u8]) -> Vec<u8> {
    let items: Vec<&[u8]> = items.iter().map(|item| item.as_ref()).collect();
    [head, b"[", &items.join(&b','), b"]", tail].concat()
}
