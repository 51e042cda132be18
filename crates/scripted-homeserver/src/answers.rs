//! What a homeserver answers from its state alone, in the statuses that Synapse answers with.

use std::collections::BTreeSet;

use http::StatusCode;
use restante_federation_proto::{ServerName, Timestamp, mint};
use serde_json::{Value, json};

use crate::homeserver::Homeserver;
use crate::pdu::{Pdu, user_of};
use crate::request::Question;
use crate::room::Room;

/// Status and body.
pub(crate) type Answer = (StatusCode, Value);

/// Events that `get_missing_events` gives at most.
const MISSING_EVENTS_MAX: usize = 20;

/// Events that `backfill` gives at most.
const BACKFILL_MAX: usize = 100;

impl Homeserver {
    /// Answers what anybody may ask; `None` if that is not such a question.
    pub(crate) fn answer_unsigned(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Option<Answer> {
        let path: Vec<&str> = question.path.iter().map(String::as_str).collect();
        match path[..] {
            ["_matrix", "key", "v2", "server", ..] => Some(self.own_keys(now)),
            ["_matrix", "key", "v2", "query", server] => Some(self.known_keys(server)),
            ["_matrix", "federation", "v1", "version"] => {
                let server = json!({"name": "scripted", "version": "1"});
                Some((StatusCode::OK, json!({ "server": server })))
            }
            _ => None,
        }
    }

    /// Answers `origin`, whose signature was checked.
    pub(crate) fn answer(&self, question: &Question<'_>, origin: &ServerName) -> Answer {
        let path: Vec<&str> = question.path.iter().map(String::as_str).collect();
        let ["_matrix", "federation", _, call, rest @ ..] = &path[..] else {
            return refused(StatusCode::NOT_FOUND, "M_UNRECOGNIZED");
        };
        if let ("event", [id]) = (*call, rest) {
            return self.event(id, origin);
        }
        let Some(room_id) = rest.first() else {
            return refused(StatusCode::NOT_FOUND, "M_UNRECOGNIZED");
        };
        let Some(room) = self.rooms.get(*room_id).filter(|room| room.members().contains(origin))
        else {
            let status = if *call == "make_join" { 404 } else { 403 };
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            return refused(status, "M_FORBIDDEN");
        };
        match *call {
            "state_ids" => state(room, question, |pdu| pdu.id.clone().into(), "pdu_ids"),
            "state" => state(room, question, |pdu| pdu.json.clone(), "pdus"),
            "get_missing_events" => missing_events(room, question),
            "backfill" => backfill(room, question),
            "make_join" => join_template(room, question, rest),
            "timestamp_to_event" => event_by_time(room, question),
            _ => refused(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
        }
    }

    fn own_keys(&self, now: Timestamp) -> Answer {
        let valid_until = now.after(self.habits.keys_valid);
        let document = mint(&self.identity.server_name, &self.identity.key, None, valid_until);
        (StatusCode::OK, serde_json::from_slice(document.raw()).unwrap_or_default())
    }

    /// As a notary that looks nothing up.
    fn known_keys(&self, server: &str) -> Answer {
        let server: Option<ServerName> = server.parse().ok();
        let document = server.and_then(|server| self.keys.document(&server));
        let (own, key) = (&self.identity.server_name, &self.identity.key);
        let documents = document.map(|document| document.countersigned(own, key));
        let documents: Vec<Value> =
            documents.iter().filter_map(|raw| serde_json::from_slice(raw).ok()).collect();
        (StatusCode::OK, json!({ "server_keys": documents }))
    }

    fn event(&self, id: &str, origin: &ServerName) -> Answer {
        let mut rooms = self.rooms.values().filter(|room| room.members().contains(origin));
        match rooms.find_map(|room| room.event(id)) {
            Some(pdu) => {
                (StatusCode::OK, json!({"origin": self.server_name(), "pdus": [pdu.json]}))
            }
            None => refused(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        }
    }
}

/// An error as Matrix writes it.
pub(crate) fn refused(status: StatusCode, errcode: &str) -> Answer {
    (status, json!({"errcode": errcode, "error": errcode}))
}

fn state(room: &Room, question: &Question<'_>, of: impl Fn(&Pdu) -> Value, member: &str) -> Answer {
    let Some(at) = question.query("event_id").next().filter(|id| room.has(id)) else {
        return refused(StatusCode::NOT_FOUND, "M_NOT_FOUND");
    };
    let state: Vec<Value> = room.state_before(at).into_iter().map(of).collect();
    (StatusCode::OK, json!({member: state, "auth_chain": [], "auth_chain_ids": []}))
}

fn missing_events(room: &Room, question: &Question<'_>) -> Answer {
    let asked: Value = serde_json::from_slice(question.body).unwrap_or_default();
    let ids = |name: &str| -> BTreeSet<String> {
        let list = asked[name].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (latest, earliest) = (ids("latest_events"), ids("earliest_events"));
    let limit = asked["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(MISSING_EVENTS_MAX).min(MISSING_EVENTS_MAX);
    let found = room.layers_before(&latest, &earliest, limit);
    let events: Vec<&Value> = found.iter().rev().map(|pdu| &pdu.json).collect();
    (StatusCode::OK, json!({ "events": events }))
}

fn backfill(room: &Room, question: &Question<'_>) -> Answer {
    let from: BTreeSet<String> = question.query("v").map(str::to_owned).collect();
    let limit = question.query("limit").next().and_then(|limit| limit.parse().ok());
    let limit = limit.unwrap_or(BACKFILL_MAX).min(BACKFILL_MAX);
    let found = room.back_from(&from, limit);
    let pdus: Vec<&Value> = found.iter().map(|pdu| &pdu.json).collect();
    (StatusCode::OK, json!({ "pdus": pdus }))
}

fn join_template(room: &Room, question: &Question<'_>, rest: &[&str]) -> Answer {
    if question.query("ver").all(|version| version != room.version_name()) {
        let error = json!({
            "errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "", "room_version": room.version_name(),
        });
        return (StatusCode::BAD_REQUEST, error);
    }
    if !room.members().iter().any(|member| rest.get(1) == Some(&user_of(member).as_str())) {
        return refused(StatusCode::FORBIDDEN, "M_FORBIDDEN");
    }
    let event = json!({ "prev_events": room.newest() });
    (StatusCode::OK, json!({"event": event, "room_version": room.version_name()}))
}

fn event_by_time(room: &Room, question: &Question<'_>) -> Answer {
    let until: u64 = question.query("ts").next().and_then(|ts| ts.parse().ok()).unwrap_or(u64::MAX);
    let events = room.timeline().iter().filter_map(|id| room.event(id));
    let before = events.filter(|pdu| pdu.sent_at.as_millis() <= until);
    match before.max_by_key(|pdu| (pdu.sent_at, pdu.depth)) {
        Some(pdu) => (StatusCode::OK, json!({"event_id": pdu.id, "origin_server_ts": pdu.sent_at})),
        None => refused(StatusCode::NOT_FOUND, "M_NOT_FOUND"),
    }
}
