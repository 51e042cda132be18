//! Reads a room's `m.room.server_acl` as it is at its end, by questions that any server may ask.
//!
//! The template of a join names the room's newest events; a template is given for any member of the own server, as
//! joining again changes nothing. Who is a member is in the state at one of the last events by time.

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;
use restante_federation_proto::{Timestamp, UserId, escape_path_segment};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::questions::{escape_query, unavailable};
use super::{Homeserver, Unavailable};
use crate::inbox::acl::ServerAcl;

/// Bytes of a room's whole state: rooms of 60,000 members fit. Mail for larger ones is not re-wrapped.
const STATE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Members of the own server for whom a template is asked; one may have left since.
const MEMBERS_MAX: usize = 5;

/// Newest events of a room that are looked at; a join names at most 20.
const NEWEST_MAX: usize = 20;

/// How far before the last event that was looked at the next one is looked for: an event on a branch from before the own server
/// joined has no member of it, and a server that was away may bring many of these at once.
const LOOKS_BACK: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_mins(1),
    Duration::from_hours(1),
    Duration::from_hours(24),
    Duration::from_hours(7 * 24),
    Duration::from_hours(30 * 24),
    Duration::from_hours(180 * 24),
    Duration::from_hours(3 * 365 * 24),
];

const ACL: &str = "m.room.server_acl";

#[derive(Deserialize)]
struct State<'a> {
    #[serde(borrow)]
    pdus: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct StateEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Membership {
    membership: String,
}

#[derive(Deserialize)]
struct Latest {
    event_id: String,
    origin_server_ts: Timestamp,
}

#[derive(Deserialize)]
struct Template {
    event: TemplateEvent,
}

#[derive(Deserialize)]
struct TemplateEvent {
    prev_events: Vec<PrevEvent>,
}

/// Rooms of the first two versions name predecessors with their hashes.
#[derive(Deserialize)]
#[serde(untagged)]
enum PrevEvent {
    Id(String),
    WithHashes(String, serde::de::IgnoredAny),
}

impl Homeserver {
    /// The lists that hold at the room's newest events; a server may take part if all of them permit it.
    pub(crate) async fn server_acls(
        &self,
        room_id: &str,
        version: &str,
        now: Timestamp,
    ) -> Result<Vec<ServerAcl>, Unavailable> {
        let newest = self.newest_events(room_id, version, now).await?;
        let mut acls = Vec::new();
        for event_id in newest {
            // The state before an event does not hold the event itself.
            let event = self.held_event(&event_id).await?;
            let event = event.ok_or_else(|| unreadable("one of its newest events is not given"))?;
            if let Some(acl) = serde_json::from_str(event.get()).ok().as_ref().and_then(acl) {
                acls.push(acl);
                continue;
            }
            let state = self.state_before(room_id, &event_id).await?;
            acls.extend(acl_in(&parse_state(&state)?));
        }
        Ok(acls)
    }

    /// The events of the room that nothing follows yet.
    pub(crate) async fn newest_events(
        &self,
        room_id: &str,
        version: &str,
        now: Timestamp,
    ) -> Result<Vec<String>, Unavailable> {
        let (mut until, mut asked) = (now, BTreeSet::new());
        for back in LOOKS_BACK {
            let Some(latest) = self.latest_event(room_id, until).await? else { break };
            for member in self.own_members_at(room_id, &latest.event_id).await? {
                if asked.insert(member.clone())
                    && let Some(newest) = self.newest_for(room_id, version, &member).await?
                {
                    return Ok(newest);
                }
            }
            until = latest.origin_server_ts.before(back);
        }
        Err(unreadable("no member of the own server is found in it"))
    }

    /// Members of the own server in the state with this event.
    async fn own_members_at(
        &self,
        room_id: &str,
        event_id: &str,
    ) -> Result<Vec<String>, Unavailable> {
        let event = self.held_event(event_id).await?;
        let state = self.state_before(room_id, event_id).await?;
        let mut state = parse_state(&state)?;
        // The state before an event does not hold the event itself: it may be the join of the only member.
        state.extend(event.as_ref().and_then(|event| serde_json::from_str(event.get()).ok()));
        Ok(self.own_members(&state))
    }

    /// The newest events by the template of a join; `None` if `member` is none at the room's end.
    async fn newest_for(
        &self,
        room_id: &str,
        version: &str,
        member: &str,
    ) -> Result<Option<Vec<String>>, Unavailable> {
        let (room, user) = (escape_path_segment(room_id), escape_path_segment(member));
        let version = escape_query(version);
        let target = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver={version}");
        let (status, body) = self.ask(&target).await?;
        match status {
            StatusCode::OK => newest(&body).map(Some),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(None),
            status => Err(unavailable(status)),
        }
    }

    /// The last event by its sender's clock, as good as most to see who was a member; `None` before the first.
    async fn latest_event(
        &self,
        room_id: &str,
        until: Timestamp,
    ) -> Result<Option<Latest>, Unavailable> {
        let (room_id, until) = (escape_path_segment(room_id), until.as_millis());
        let target =
            format!("/_matrix/federation/v1/timestamp_to_event/{room_id}?ts={until}&dir=b");
        match self.ask(&target).await? {
            (StatusCode::OK, body) => {
                let latest = serde_json::from_slice(&body);
                latest.map(Some).map_err(|_| unreadable("no event is named"))
            }
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, _) => Err(unavailable(status)),
        }
    }

    async fn state_before(
        &self,
        room_id: &str,
        event_id: &str,
    ) -> Result<bytes::Bytes, Unavailable> {
        let (room_id, event_id) = (escape_path_segment(room_id), escape_query(event_id));
        let target = format!("/_matrix/federation/v1/state/{room_id}?event_id={event_id}");
        match self.ask_for(&target, STATE_BYTES_MAX).await? {
            (StatusCode::OK, body) if body.is_empty() => Err(unreadable("its state is too large")),
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(unavailable(status)),
        }
    }

    fn own_members(&self, state: &[StateEvent<'_>]) -> Vec<String> {
        let own_name = &self.shared.identity.server_name;
        let is_joined = |event: &&StateEvent<'_>| {
            let membership: Option<Membership> = serde_json::from_str(event.content.get()).ok();
            event.kind == "m.room.member" && membership.is_some_and(|of| of.membership == "join")
        };
        let joined = state.iter().filter(is_joined).filter_map(|event| event.state_key.as_ref());
        let own = joined
            .filter(|user| user.parse::<UserId>().is_ok_and(|user| user.server_name() == own_name));
        own.take(MEMBERS_MAX).cloned().collect()
    }
}

fn newest(body: &[u8]) -> Result<Vec<String>, Unavailable> {
    let template: Template =
        serde_json::from_slice(body).map_err(|_| unreadable("its newest events are not named"))?;
    let ids = template.event.prev_events.into_iter().map(|prev| match prev {
        PrevEvent::Id(id) | PrevEvent::WithHashes(id, _) => id,
    });
    let ids: Vec<String> = ids.collect();
    if ids.is_empty() || ids.len() > NEWEST_MAX {
        return Err(unreadable("its newest events are not named"));
    }
    Ok(ids)
}

fn parse_state(body: &[u8]) -> Result<Vec<StateEvent<'_>>, Unavailable> {
    let state: State<'_> =
        serde_json::from_slice(body).map_err(|_| unreadable("its state is malformed"))?;
    // What has no state key is no state; homeservers give none such.
    Ok(state.pdus.into_iter().filter_map(|pdu| serde_json::from_str(pdu.get()).ok()).collect())
}

fn acl_in(state: &[StateEvent<'_>]) -> Option<ServerAcl> {
    state.iter().find_map(acl)
}

fn acl(event: &StateEvent<'_>) -> Option<ServerAcl> {
    let is_acl = event.kind == ACL && event.state_key.as_deref() == Some("");
    is_acl.then(|| ServerAcl::parse(event.content.get())).flatten()
}

fn unreadable(why: &str) -> Unavailable {
    Unavailable(format!("who may take part in the room can't be read: {why}"))
}
