//! Fetches what a room's backlog lacks from the servers that brought the backlog, once they can be reached again.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{Patience, Peer, collect_limited, signed_request};
use restante_federation_proto::{RequestTarget, ServerName, canonicalise, escape_path_segment};
use restante_sqlite::StoreError;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::backlog::Held;
use super::load::{Class, Weight};
use super::transaction::{Pdu, Transaction};
use crate::homeserver::Presence;
use crate::store::backlog::{self as backlog_rows, Aside, Fate};
use crate::store::rooms;

/// Servers that are asked in one turn.
const SERVERS_MAX: usize = 3;

/// Events whose predecessors are asked for at once.
const LATEST_MAX: usize = 20;

/// Events that are asked for at once; homeservers give no more.
const LIMIT: usize = 20;

/// For one question.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(20) };

/// Bytes of an answer: twenty events of the largest size.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Rooms that are looked at when their server is back; the others are when their wait ends.
const ROOMS_MAX: u32 = 100;

/// Looks at the backlogs of servers that are back, at once.
pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    let mut returns = inbox.site().destinations.returns();
    while let Some(returned) = shutdown.run_until_cancelled(returns.recv()).await {
        match returned {
            Ok(origin) => inbox.is_back(&origin).await,
            // Rooms are also looked at from time to time.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

impl Inbox {
    async fn is_back(&self, origin: &ServerName) {
        let rooms = backlog_rows::rooms_of(self.database(), origin.clone(), ROOMS_MAX).await;
        let rooms = rooms.unwrap_or_else(|error| {
            tracing::error!(%origin, %error, "the backlogs of a server that is back wait longer");
            Vec::new()
        });
        rooms.iter().for_each(|room_id| self.progressed(room_id));
        self.wake(origin);
    }

    /// Asks for what lies between `present` and the backlog; whether something came that was missing.
    pub(super) async fn ask_origins(
        &self,
        room_id: &str,
        held: &[Held],
        (present, absent): (&BTreeSet<String>, &BTreeSet<String>),
    ) -> Result<bool, StoreError> {
        // A name that somebody else gave is not asked: what it answers would count as proven.
        let proven = held.iter().filter(|held| held.is_proven);
        let origins: BTreeSet<&ServerName> = proven.map(|held| &held.origin).collect();
        for origin in origins.into_iter().take(SERVERS_MAX) {
            if !self.site().destinations.reachable(origin).await {
                continue;
            }
            let Some(events) = self.missing_events(origin, room_id, held, present, absent).await
            else {
                continue;
            };
            let pdus = self.wanted(room_id, events, absent).await?;
            if pdus.is_empty() || !self.has_room(origin, &pdus) {
                continue;
            }
            let fate = Fate::Waits { attempts: 0, due_at: self.now() };
            let events = pdus.into_iter().map(|pdu| Aside {
                pdu,
                origin: origin.clone(),
                is_proven: true,
                fate: fate.clone(),
            });
            // What is parked here is given again and again, and brings nobody on.
            let count = self.hold(events.collect()).await?;
            if count > 0 {
                tracing::info!(%origin, room_id, count, "a server gave what a backlog lacks");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A server that makes up one event after the other has them kept as far as its share goes.
    fn has_room(&self, origin: &ServerName, pdus: &[Pdu]) -> bool {
        let bytes = pdus.iter().map(|pdu| pdu.json.len() as u64).sum();
        let weight = Weight { count: 0, bytes };
        let checked = self.state().load.check(origin, Class::Proven, weight);
        if checked.is_err() {
            tracing::warn!(%origin, "the inbox has no room for what a server gave that a backlog lacks");
        }
        checked.is_ok()
    }

    async fn missing_events(
        &self,
        origin: &ServerName,
        room_id: &str,
        held: &[Held],
        present: &BTreeSet<String>,
        absent: &BTreeSet<String>,
    ) -> Option<Vec<Bytes>> {
        let lacks = |held: &&Held| held.prev_events.iter().any(|prev| absent.contains(prev));
        let latest = held.iter().filter(lacks).take(LATEST_MAX);
        let latest: Vec<&str> = latest.map(|held| held.event_id.as_str()).collect();
        let earliest =
            self.newest(room_id).await.unwrap_or_else(|| present.iter().cloned().collect());
        let question = serde_json::json!({
            "earliest_events": earliest, "latest_events": latest, "limit": LIMIT, "min_depth": 0,
        });
        let question = canonicalise(question.to_string().as_bytes()).ok()?.into_owned();
        let room = escape_path_segment(room_id);
        let target = format!("/_matrix/federation/v1/get_missing_events/{room}");
        let target: RequestTarget = target.parse().ok()?;
        let identity = &self.site().identity;
        let request =
            signed_request(identity, Method::POST, &target, origin, Some(question.into()));
        let asked = async {
            let peer = Peer::from(origin.clone());
            let answer = self.site().exchange.exchange(&peer, request, PATIENCE).await.ok()?;
            let is_answered = answer.status() == StatusCode::OK;
            let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await.ok()?;
            is_answered.then_some(body)
        };
        let body = tokio::time::timeout(PATIENCE.answer, asked).await.ok()??;
        let answer: Answer<'_> = serde_json::from_slice(&body).ok()?;
        let events = answer.events.into_iter().take(LIMIT);
        Some(events.map(|event| body.slice_ref(event.get().as_bytes())).collect())
    }

    /// What the homeserver has of the room already, at its end.
    async fn newest(&self, room_id: &str) -> Option<Vec<String>> {
        let versions = rooms::versions(self.database(), [room_id.to_owned()].into()).await.ok()?;
        let version = versions.get(room_id)?;
        self.site().homeserver.newest_events(room_id, version, self.now()).await.ok()
    }

    /// Those events of the room that are `absent`, or that those follow and the homeserver lacks: a server can't fill
    /// the backlog with others, nor with what was before the homeserver joined.
    async fn wanted(
        &self,
        room_id: &str,
        events: Vec<Bytes>,
        absent: &BTreeSet<String>,
    ) -> Result<Vec<Pdu>, StoreError> {
        let versions = rooms::versions(self.database(), [room_id.to_owned()].into()).await?;
        let mut events = Transaction::of(events).pdus(&versions);
        events.retain(|pdu| pdu.room_id == room_id);
        let (mut wanted, mut chosen) = (absent.clone(), Vec::new());
        while let Some(index) = events
            .iter()
            .rposition(|pdu| pdu.event_id.as_ref().is_some_and(|id| wanted.contains(id)))
        {
            let pdu = events.remove(index);
            for prev in &pdu.prev_events {
                let there = self.site().homeserver.state_ids(room_id, prev).await;
                if there == Ok(Presence::Absent) {
                    wanted.insert(prev.clone());
                }
            }
            chosen.push(pdu);
        }
        chosen.reverse();
        Ok(chosen)
    }
}
