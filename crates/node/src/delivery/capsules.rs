//! Packs the capsule of a transaction: what its events follow and what is not known to be at the destination, fetched
//! from the own homeserver, and the keys of who wrote it.
//!
//! The shell around the walk in `ancestors`. Whatever goes wrong, the transaction is left without the capsule of that
//! room: its recipient then waits for the gap to close in another way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::Capsule;
use restante_relay_api::limits::{
    BODY_BYTES_MAX, CAPSULE_BYTES_MAX, CAPSULE_KEYS_MAX, CAPSULE_PDUS_MAX,
    EXTRAS_BESIDE_CAPSULE_BYTES_MAX,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::ancestors::{Ancestors, Step};
use super::contents::{self, Event, Room};
use super::mail::Mail;
use super::schedule::CAPSULE_WAIT;
use crate::site::Site;

/// Capsules that are packed at once; each may hold [`FETCHED_BYTES_MAX`] in memory.
const PACKED_AT_ONCE: usize = 8;

/// Bytes that are fetched for one room: a capsule, and as much again of what turns out to be known, twice.
const FETCHED_BYTES_MAX: usize = 3 * CAPSULE_BYTES_MAX;

/// Events that are asked for in one question (server-server API, `/backfill`: Synapse gives 100 at most).
const BACKFILL: usize = 100;

/// Events that are asked for where more would make too long an answer.
const BACKFILL_OF_LARGE_EVENTS: usize = 20;

/// How long the keys of third servers may be looked for; without them the capsule goes all the same.
const KEYS_WAIT: Duration = Duration::from_secs(1);

/// How long the ids of what was delivered may take: rooms met for the first time ask the homeserver.
pub(super) const CONTENTS_WAIT: Duration = Duration::from_secs(2);

/// Packs capsules. Clones share the limit.
#[derive(Clone)]
pub(super) struct Capsules {
    site: Site,
    packing: Arc<Semaphore>,
}

/// What goes along with a deposit.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// The capsule, if there is one.
    pub(super) capsule: Option<Capsule>,
    /// What the destination has once the mail is there.
    pub(super) event_ids: BTreeSet<String>,
    /// Whether the mail needs anything beside it.
    pub(super) follows: Follows,
}

/// What the events of a transaction follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Follows {
    /// What the destination is known to have, or will have before: it can take them as they are.
    Known,
    /// What it may not have: without a node it drops them.
    #[default]
    Unknown,
}

/// The ancestors of a room's events.
struct Gathered {
    /// Those that are not known to be at the destination.
    events: Vec<Event>,
    /// Whether there are some that our homeserver does not have itself.
    is_cut_short: bool,
}

impl Capsules {
    pub(super) fn new(site: Site) -> Self {
        Self { site, packing: Arc::new(Semaphore::new(PACKED_AT_ONCE)) }
    }

    /// Packs what `mail` needs, within [`CAPSULE_WAIT`].
    pub(super) async fn pack(&self, mail: &Mail) -> Packed {
        let deadline = Instant::now() + CAPSULE_WAIT;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.packing.acquire()).await else {
            tracing::warn!(destination = %mail.destination(), txn_id = mail.txn_id(), "too many capsules at once; left without one");
            return Packed::default();
        };
        let rooms = timeout_at(deadline, contents::read(&self.site, mail.content())).await;
        let rooms = rooms.unwrap_or_default();
        let read: usize = rooms.iter().map(|room| room.events.len()).sum();
        let is_all_read = read == contents::count(mail.content());
        let mut follows = if is_all_read { Follows::Known } else { Follows::Unknown };
        let mut event_ids = ids(&rooms);
        let mut events = Vec::new();
        for room in &rooms {
            let gathered = timeout_at(deadline, self.gather(mail.destination(), room)).await;
            match gathered.unwrap_or_else(|_| Err("the homeserver takes too long".to_owned())) {
                Ok(gathered) => {
                    if gathered.is_cut_short || !gathered.events.is_empty() {
                        follows = Follows::Unknown;
                    }
                    events.extend(gathered.events);
                }
                Err(reason) => {
                    follows = Follows::Unknown;
                    tracing::warn!(destination = %mail.destination(), txn_id = mail.txn_id(), room_id = room.room_id, reason, "left without a capsule");
                }
            }
        }
        let capsule = self.seal(mail, &events).await;
        if let Some(capsule) = &capsule {
            tracing::info!(destination = %mail.destination(), txn_id = mail.txn_id(), events = capsule.pdus().len(), "packed a capsule");
            event_ids.extend(events.into_iter().map(|event| event.event_id));
        }
        Packed { capsule, event_ids, follows }
    }

    /// What `mail` brought to its destination directly: its events but those that it has `refused`, and what they follow, for
    /// which the destination can ask.
    pub(super) async fn brought(
        &self,
        mail: &Mail,
        refused: impl Fn(&str) -> bool,
    ) -> BTreeSet<String> {
        let rooms = timeout(CONTENTS_WAIT, contents::read(&self.site, mail.content())).await;
        let rooms = rooms.unwrap_or_default();
        let events = rooms.into_iter().flat_map(|room| room.events);
        let taken = events.filter(|event| !refused(&event.event_id));
        taken
            .flat_map(|event| std::iter::once(event.event_id).chain(event.ancestor.prev_events))
            .collect()
    }

    /// The ancestors of `room`'s events that are not known to be at `destination`, each after its predecessors.
    async fn gather(&self, destination: &ServerName, room: &Room) -> Result<Gathered, String> {
        let sent = room.events.iter().map(|event| (event.event_id.clone(), event.ancestor.clone()));
        let mut walk = Ancestors::of(sent);
        let mut events: BTreeMap<String, Event> = BTreeMap::new();
        let mut bytes = 0;
        for event in &room.events {
            events.insert(event.event_id.clone(), event.clone());
        }
        let (mut looked_up, mut is_cut_short) = (BTreeSet::new(), false);
        loop {
            self.mark_known(destination, &mut walk, &mut looked_up).await?;
            let from = match walk.next_step() {
                Step::Done(order) => {
                    let events = order.iter().filter_map(|id| events.remove(id)).collect();
                    return Ok(Gathered { events, is_cut_short });
                }
                Step::TooMany => {
                    return Err(format!("the gap has more than {CAPSULE_PDUS_MAX} events"));
                }
                Step::Fetch(from) => from,
            };
            for event in self.fetch(room, &from).await? {
                if walk.has(&event.event_id) {
                    continue;
                }
                bytes += event.json.len();
                if bytes > FETCHED_BYTES_MAX {
                    return Err(format!("the gap has more than {FETCHED_BYTES_MAX} bytes"));
                }
                if event.sender == *destination {
                    walk.mark(event.event_id.clone());
                }
                walk.fetched(event.event_id.clone(), event.ancestor.clone());
                events.insert(event.event_id.clone(), event);
            }
            for id in from.into_iter().filter(|id| !events.contains_key(id)) {
                is_cut_short = true;
                walk.is_unobtainable(id);
            }
        }
    }

    async fn mark_known(
        &self,
        destination: &ServerName,
        walk: &mut Ancestors,
        looked_up: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        let mut mentioned = walk.mentioned();
        mentioned.retain(|id| !looked_up.contains(id));
        looked_up.extend(mentioned.iter().cloned());
        let known = self.site.passed.known(destination, mentioned).await;
        let known = known.map_err(|error| format!("the node's memory can't be read ({error})"))?;
        known.into_iter().for_each(|id| walk.mark(id));
        Ok(())
    }

    /// The events `from`, as far as the homeserver has them, and others before them.
    ///
    /// A redacted event looks like one that the homeserver may not see. It goes along all the same: the rest of the
    /// gap can't be closed without it.
    async fn fetch(&self, room: &Room, from: &[String]) -> Result<Vec<Event>, String> {
        let homeserver = &self.site.homeserver;
        let mut pdus = Vec::new();
        for limit in [BACKFILL, BACKFILL_OF_LARGE_EVENTS] {
            let answer = homeserver.backfill(&room.room_id, from, limit).await;
            pdus = answer.map_err(|error| error.to_string())?;
            if !pdus.is_empty() {
                break;
            }
        }
        let read = |pdu: crate::homeserver::HeldPdu| {
            let json = Bytes::from(String::from(Box::<str>::from(pdu)));
            Event::read(json, &room.room_id, room.version)
        };
        let mut events: Vec<Event> = pdus.into_iter().filter_map(read).collect();
        // The answer goes by depth, and may have no place for those of little depth.
        let given: BTreeSet<String> = events.iter().map(|event| event.event_id.clone()).collect();
        for event_id in from.iter().filter(|id| !given.contains(*id)) {
            let single =
                homeserver.held_event(event_id).await.map_err(|error| error.to_string())?;
            events.extend(single.and_then(read));
        }
        Ok(events)
    }

    async fn seal(&self, mail: &Mail, events: &[Event]) -> Option<Capsule> {
        if events.is_empty() {
            return None;
        }
        let keys = self.keys(mail.destination(), events).await;
        let pdus: Vec<Bytes> = events.iter().map(|event| event.json.clone()).collect();
        let reason = match Capsule::new(&pdus, &keys) {
            Ok(capsule) => {
                let beside = mail.content().len() + EXTRAS_BESIDE_CAPSULE_BYTES_MAX;
                if capsule.canonical().len() + beside <= BODY_BYTES_MAX {
                    return Some(capsule);
                }
                "it and the transaction are larger than a deposit may be".to_owned()
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(destination = %mail.destination(), txn_id = mail.txn_id(), reason, "left without a capsule");
        None
    }

    /// Key documents of third servers that wrote `events`, each valid when its newest event was written if there is
    /// such a one.
    async fn keys(
        &self,
        destination: &ServerName,
        events: &[Event],
    ) -> BTreeMap<ServerName, Bytes> {
        let mut newest: BTreeMap<&ServerName, u64> = BTreeMap::new();
        let own = self.site.server_name();
        for event in
            events.iter().filter(|event| event.sender != *own && event.sender != *destination)
        {
            let written_at = newest.entry(&event.sender).or_default();
            *written_at = event.written_at.max(*written_at);
        }
        let deadline = Instant::now() + KEYS_WAIT;
        let mut documents = BTreeMap::new();
        for (server, written_at) in newest.into_iter().take(CAPSULE_KEYS_MAX) {
            let keys = &self.site.keys;
            let needed = Timestamp::from_millis(written_at);
            let mut kept = keys.believed(server).await;
            if kept.as_ref().is_none_or(|kept| kept.document.valid_until() < needed) {
                let refreshed = timeout_at(deadline, keys.refreshed(server, needed)).await;
                kept = refreshed.ok().and_then(Result::ok).or(kept);
            }
            documents.extend(kept.map(|kept| (server.clone(), kept.document.raw().clone())));
        }
        documents
    }
}

fn ids(rooms: &[Room]) -> BTreeSet<String> {
    let events = rooms.iter().flat_map(|room| &room.events);
    events.map(|event| event.event_id.clone()).collect()
}
