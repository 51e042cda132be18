//! Decides what a call of the homeserver is for. Pure.

use http::Method;
use restante_federation_proto::{ServerName, unescape_path_segment};
use restante_relay_api::endpoints::{KEY_QUERY, KEY_SERVER, SEND};
use restante_relay_api::limits::TXN_ID_BYTES_MAX;

use super::hook::HookCall;

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A transaction: delivered, or left with relays.
    Send {
        /// Its id.
        txn_id: String,
    },
    /// The destination's own keys.
    Keys,
    /// Keys of others, asked of ourselves as a notary.
    Notary,
    /// Anything else asked of ourselves.
    Nothing,
    /// The events of a room between others.
    MissingEvents {
        /// The room.
        room_id: String,
    },
    /// One event.
    Event {
        /// Its id.
        event_id: String,
    },
    /// Everything else: passed through.
    PassThrough,
}

/// What the homeserver `own` wants with `call`.
pub(crate) fn purpose(method: &Method, call: &HookCall, own: &ServerName) -> Purpose {
    let target = call.target.as_str();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if call.destination == *own {
        return if is_at_or_below(path, KEY_QUERY) { Purpose::Notary } else { Purpose::Nothing };
    }
    if method == Method::GET && is_at_or_below(path, KEY_SERVER) {
        return Purpose::Keys;
    }
    if method == Method::POST
        && let Some(room_id) = segment_behind(path, MISSING_EVENTS)
    {
        return Purpose::MissingEvents { room_id };
    }
    if method == Method::GET
        && let Some(event_id) = segment_behind(path, EVENT)
    {
        return Purpose::Event { event_id };
    }
    match transaction_id(target) {
        Some(txn_id) if method == Method::PUT => Purpose::Send { txn_id },
        _ => Purpose::PassThrough,
    }
}

/// Prefix of a question for missing events.
const MISSING_EVENTS: &str = "/_matrix/federation/v1/get_missing_events/";

/// Prefix of a question for one event.
const EVENT: &str = "/_matrix/federation/v1/event/";

fn segment_behind(path: &str, prefix: &str) -> Option<String> {
    let segment = path.strip_prefix(prefix)?;
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    unescape_path_segment(segment)
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The id of a transaction in the one form that a proof may have; other forms only go directly.
fn transaction_id(target: &str) -> Option<String> {
    let segment = target.strip_prefix(SEND)?;
    if segment.is_empty() || segment.contains(['/', '?', '#']) {
        return None;
    }
    unescape_path_segment(segment).filter(|txn_id| txn_id.len() <= TXN_ID_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, destination: &str, target: &str) -> Purpose {
        let call = HookCall {
            destination: destination.parse().unwrap(),
            target: target.parse().unwrap(),
            authorization: String::new(),
        };
        purpose(&method, &call, &"a.test".parse().unwrap())
    }

    #[test]
    fn calls_are_told_apart() {
        let send = |txn_id: &str| Purpose::Send { txn_id: txn_id.to_owned() };
        for (method, destination, target, expected) in [
            (Method::PUT, "b.test", "/_matrix/federation/v1/send/17%2F9", send("17/9")),
            (Method::PUT, "b.test", "/_matrix/federation/v1/send/17?x", Purpose::PassThrough),
            (Method::PUT, "b.test", "/_matrix/federation/v1/send/", Purpose::PassThrough),
            (Method::PUT, "b.test", "/_matrix/federation/v1/send/1/2", Purpose::PassThrough),
            (Method::GET, "b.test", "/_matrix/federation/v1/send/17", Purpose::PassThrough),
            (Method::PUT, "b.test", "/_matrix/federation/v2/send_join/!r/$e", Purpose::PassThrough),
            (
                Method::POST,
                "b.test",
                "/_matrix/federation/v1/get_missing_events/%21r%2F",
                Purpose::MissingEvents { room_id: "!r/".to_owned() },
            ),
            (
                Method::GET,
                "b.test",
                "/_matrix/federation/v1/event/%24e?x",
                Purpose::Event { event_id: "$e".to_owned() },
            ),
            (Method::GET, "b.test", "/_matrix/federation/v1/event_auth/$e", Purpose::PassThrough),
            (Method::GET, "b.test", "/_matrix/key/v2/server", Purpose::Keys),
            (Method::GET, "b.test", "/_matrix/key/v2/server/ed25519:1?x=1", Purpose::Keys),
            (Method::POST, "b.test", "/_matrix/key/v2/query", Purpose::PassThrough),
            (Method::POST, "a.test", "/_matrix/key/v2/query", Purpose::Notary),
            (Method::GET, "a.test", "/_matrix/key/v2/query/b.test?x=1", Purpose::Notary),
            (Method::GET, "a.test", "/_matrix/key/v2/query_more", Purpose::Nothing),
            (Method::PUT, "a.test", "/_matrix/federation/v1/send/17", Purpose::Nothing),
        ] {
            assert_eq!(of(method, destination, target), expected, "{destination} {target}");
        }
    }
}
