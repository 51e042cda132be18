//! Delivers what the room backlogs hold: in the homeserver's own name, each event after its predecessors.
//!
//! One transaction at a time, because a homeserver refuses a second one of the same origin meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{Timestamp, canonicalise};
use restante_relay_api::hex;
use restante_relay_api::limits::PDUS_MAX;
use restante_sqlite::StoreError;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::acl::ServerAcl;
use super::backlog::{self, Dropped, Held};
use super::backlog_rooms::RoomTurn;
use super::window::{Carrier, Sent};
use crate::homeserver::{Presence, Replayed, Unavailable};
use crate::restart::caught;
use crate::stand_in::{HeldEvent, HeldSource};
use crate::store::backlog::{self as rows, Fate};
use crate::store::checksum::DAMAGED;
use crate::store::rooms;

/// How long it is believed who may take part in a room: one batch of events, and short beside what an operator
/// takes to look whether a change took effect.
const ACL_BELIEVED: Duration = Duration::from_secs(10);

/// The wait before an event is delivered again whose sender's keys are not known: as often as keys may turn up, and
/// rarely enough that a room full of such events is no load.
const KEYLESS_RETRY: Duration = Duration::from_secs(5 * 60);

/// Missing events that a reason names.
const NAMED_EVENTS_MAX: usize = 3;

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    for number in 0_usize.. {
        let next = inbox.state().backlog.next();
        let Some((room_id, due)) = next else {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = inbox.shared.backlog_due.notified() => continue,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(due.since(inbox.elapsed())) => {}
            () = inbox.shared.backlog_due.notified() => continue,
        }
        // What is cut off here is delivered again under the same transaction id.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = inbox.look_at_room(&room_id, number) => {}
        }
    }
}

/// What the homeserver says of the predecessors.
enum Predecessors {
    /// These it has, of those that were asked for.
    There { present: BTreeSet<String>, absent: BTreeSet<String> },
    /// It is not in the room.
    NotInRoom,
}

impl Inbox {
    async fn look_at_room(&self, room_id: &str, number: usize) {
        self.state().backlog.begin(room_id);
        let turn = match caught("a look at a backlog", self.room_turn(room_id, number)).await {
            Some(Ok(turn)) => turn,
            Some(Err(error)) => {
                tracing::error!(room_id, %error, "a room's backlog can't be used; it waits");
                waits("the node's database failed")
            }
            None => waits("the node failed; its log says more"),
        };
        let (now, random) = (self.elapsed(), self.shared.site.dice.fraction());
        self.state().backlog.ended(room_id, turn, now, random);
    }

    async fn room_turn(&self, room_id: &str, number: usize) -> Result<RoomTurn, StoreError> {
        let (held, is_acl_open) = rows::of_room(self.database(), room_id.to_owned()).await?;
        if held.is_empty() {
            return Ok(RoomTurn::Empty);
        }
        if is_acl_open {
            return Ok(waits("a change of who may take part in it is being confirmed"));
        }
        let (present, absent) = match self.predecessors(room_id, &held, number).await {
            Ok(Predecessors::There { present, absent }) => (present, absent),
            Ok(Predecessors::NotInRoom) => {
                self.park(room_id, &held, "the homeserver is not in its room").await?;
                return Ok(RoomTurn::Progress);
            }
            Err(error) => return Ok(waits(&error.to_string())),
        };
        let now = self.now();
        let chosen: Vec<Held> = {
            let state = self.state();
            let is_there = |id: &str| {
                let event = (room_id.to_owned(), id.to_owned());
                present.contains(id) || state.confirmations.delivered(&event)
            };
            let places = state.confirmations.places(room_id).min(PDUS_MAX);
            backlog::deliverable(&held, is_there, places, now).into_iter().cloned().collect()
        };
        if self.park_denied(room_id, &held, &chosen).await? {
            return Ok(RoomTurn::Progress);
        }
        if chosen.is_empty() {
            if !absent.is_empty() && self.ask_origins(room_id, &held, (&present, &absent)).await? {
                return Ok(RoomTurn::Progress);
            }
            return Ok(nothing_deliverable(&held, &absent, now));
        }
        // Nothing is delivered unless it is known who may take part.
        if let Err(error) = self.server_acls(room_id).await? {
            return Ok(waits(&error.to_string()));
        }
        self.deliver_rewrapped(room_id, chosen).await
    }

    /// Parks what the room's ACL denies, whether or not it could be delivered: it would wait in vain. While a change of
    /// the ACL waits as well, only what is `chosen` is judged, since what follows the change must be judged by it.
    async fn park_denied(
        &self,
        room_id: &str,
        held: &[Held],
        chosen: &[Held],
    ) -> Result<bool, StoreError> {
        let judged = if held.iter().any(|held| held.is_acl) { chosen } else { held };
        let Ok(acls) = self.server_acls(room_id).await? else { return Ok(false) };
        let denied: Vec<Held> =
            judged.iter().filter(|held| !permits(&acls, held)).cloned().collect();
        if denied.is_empty() {
            return Ok(false);
        }
        self.park(room_id, &denied, "the room's server ACL denies its sender's server").await?;
        Ok(true)
    }

    async fn predecessors(
        &self,
        room_id: &str,
        held: &[Held],
        number: usize,
    ) -> Result<Predecessors, Unavailable> {
        let questions = {
            let state = self.state();
            let delivered =
                |id: &str| state.confirmations.delivered(&(room_id.to_owned(), id.to_owned()));
            backlog::questions(held, delivered, number)
        };
        let (mut present, mut absent) = (BTreeSet::new(), BTreeSet::new());
        for event_id in questions {
            match self.site().homeserver.state_ids(room_id, &event_id).await? {
                Presence::Present => present.insert(event_id),
                Presence::Absent => absent.insert(event_id),
                Presence::NotInRoom => return Ok(Predecessors::NotInRoom),
                Presence::Incomplete => {
                    let reason = "it joined the room and does not have its whole state yet";
                    return Err(Unavailable(reason.to_owned()));
                }
            };
        }
        Ok(Predecessors::There { present, absent })
    }

    /// Who may take part in the room, believed for a short time.
    async fn server_acls(
        &self,
        room_id: &str,
    ) -> Result<Result<Arc<Vec<ServerAcl>>, Unavailable>, StoreError> {
        let now = self.elapsed();
        {
            let mut state = self.state();
            state.acls.retain(|_, (read_at, _)| now < read_at.after(ACL_BELIEVED));
            if let Some((_, acls)) = state.acls.get(room_id) {
                return Ok(Ok(acls.clone()));
            }
        }
        let versions = rooms::versions(self.database(), [room_id.to_owned()].into()).await?;
        let Some(version) = versions.get(room_id) else {
            let error = Unavailable("it can't be asked who may take part in the room".to_owned());
            return Ok(Err(error));
        };
        let acls = match self.site().homeserver.server_acls(room_id, version, self.now()).await {
            Ok(acls) => Arc::new(acls),
            Err(error) => return Ok(Err(error)),
        };
        self.state().acls.insert(room_id.to_owned(), (now, acls.clone()));
        Ok(Ok(acls))
    }

    async fn deliver_rewrapped(
        &self,
        room_id: &str,
        chosen: Vec<Held>,
    ) -> Result<RoomTurn, StoreError> {
        let ids: Vec<i64> = chosen.iter().map(|held| held.id).collect();
        let mut bodies = Vec::with_capacity(ids.len());
        let mut damaged = Vec::new();
        for (held, body) in chosen.iter().zip(rows::bodies(self.database(), ids).await?) {
            match body {
                Some(body) => bodies.push(body),
                None => damaged.push(held.clone()),
            }
        }
        if !damaged.is_empty() {
            tracing::error!(
                room_id,
                count = damaged.len(),
                "events are damaged and parked; check the disk"
            );
            self.park(room_id, &damaged, DAMAGED).await?;
            return Ok(RoomTurn::Progress);
        }
        let Some(content) = self.transaction_of(&bodies) else {
            self.park(room_id, &chosen, "it has no canonical form").await?;
            return Ok(RoomTurn::Progress);
        };
        self.stand_in_for(room_id, &chosen, bodies).await?;
        let counts = BTreeMap::from([(room_id.to_owned(), chosen.len())]);
        let _places = self.take_places(counts, None);
        let txn_id = txn_id(&chosen);
        let replayed = self.site().homeserver.rewrapped(&txn_id, content).await;
        self.rewrapped(room_id, chosen, replayed).await
    }

    /// Whoever asks the homeserver's questions about these events meanwhile gets them from this node.
    async fn stand_in_for(
        &self,
        room_id: &str,
        chosen: &[Held],
        bodies: Vec<Bytes>,
    ) -> Result<(), StoreError> {
        let events = chosen.iter().zip(bodies).map(|(held, pdu)| HeldEvent {
            room_id: room_id.to_owned(),
            event_id: held.event_id.clone(),
            prev_events: held.prev_events.clone(),
            pdu,
            source: HeldSource::Capsule,
            is_proven: held.is_proven,
        });
        self.site().stand_in.note(events.collect()).await.map(drop)
    }

    fn transaction_of(&self, bodies: &[Bytes]) -> Option<Bytes> {
        let origin = serde_json::to_string(self.site().server_name()).ok()?;
        let now = self.now().as_millis();
        let mut json =
            format!(r#"{{"edus":[],"origin":{origin},"origin_server_ts":{now},"pdus":["#)
                .into_bytes();
        for (index, body) in bodies.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            json.extend_from_slice(body);
        }
        json.extend_from_slice(b"]}");
        canonicalise(&json).ok().map(|json| json.into_owned().into())
    }

    async fn rewrapped(
        &self,
        room_id: &str,
        chosen: Vec<Held>,
        replayed: Replayed,
    ) -> Result<RoomTurn, StoreError> {
        match replayed {
            Replayed::Taken { refused } => {
                let (bad, good): (Vec<Held>, Vec<Held>) =
                    chosen.into_iter().partition(|held| refused.contains_key(&held.event_id));
                for held in &bad {
                    let reason = format!("the homeserver refused it: {}", refused[&held.event_id]);
                    if self.may_lack_key_of(held.sender.as_ref()).await {
                        let now = self.now();
                        let decide = move |attempts| fate_of_keyless(attempts, now);
                        rows::dropped(self.database(), held.id, reason, now, decide).await?;
                    } else {
                        self.park(room_id, std::slice::from_ref(held), &reason).await?;
                    }
                }
                rows::sent(self.database(), good.iter().map(|held| held.id).collect()).await?;
                let events = good.into_iter().map(|held| in_window(room_id, held)).collect();
                let now = self.elapsed();
                self.state().confirmations.rewrapped(events, now);
                self.shared.looks_due.notify_one();
                Ok(RoomTurn::Progress)
            }
            Replayed::Refused { reason } => {
                for held in chosen {
                    self.held_dropped(held.id, reason.clone()).await?;
                }
                Ok(waits(&reason))
            }
            Replayed::Later { reason, .. } | Replayed::Keyless { reason } => Ok(waits(&reason)),
        }
    }

    /// The homeserver did not store an event of the backlog.
    pub(super) async fn held_dropped(&self, id: i64, reason: String) -> Result<(), StoreError> {
        let now = self.now();
        let decide = {
            let reason = reason.clone();
            move |attempts| fate_of_dropped(attempts, reason, now)
        };
        rows::dropped(self.database(), id, reason, now, decide).await?;
        self.site().bells.receipts.notify_one();
        Ok(())
    }

    async fn park(&self, room_id: &str, held: &[Held], reason: &str) -> Result<(), StoreError> {
        tracing::warn!(
            room_id,
            count = held.len(),
            reason,
            "events of a room's backlog are parked"
        );
        let parked = held.iter().map(|held| (held.id, reason.to_owned())).collect();
        rows::park(self.database(), parked, self.now()).await?;
        self.site().bells.receipts.notify_one();
        let event_ids = held.iter().map(|held| held.event_id.clone()).collect();
        self.site().stand_in.forget(room_id.to_owned(), event_ids).await
    }

    /// What was sent before a restart is looked for again.
    pub(super) async fn restore_backlog(&self) -> Result<(), StoreError> {
        for room in rows::rooms(self.database(), u32::MAX).await? {
            self.state().backlog.added(&room.room_id, Timestamp::EPOCH);
        }
        let events = rows::unconfirmed(self.database()).await?.into_iter().map(|row| {
            let (room_id, event_id) = row.event;
            let carrier = Carrier::Backlog(row.id);
            (room_id, Sent { event_id, prev_events: row.prev_events, carrier })
        });
        let events: Vec<_> = events.collect();
        self.state().confirmations.rewrapped(events, Timestamp::EPOCH);
        Ok(())
    }
}

/// What becomes of an event that the homeserver dropped so often.
pub(super) fn fate_of_dropped(attempts: u32, reason: String, now: Timestamp) -> Fate {
    match backlog::dropped(attempts) {
        Dropped::Again(wait) => Fate::Waits { attempts, due_at: now.after(wait) },
        Dropped::Park => Fate::Parked(format!("{reason}, {attempts} times")),
    }
}

/// What becomes of an event that the homeserver refused while its sender's keys are not known: it waits for them, for as
/// long as anything waits in a backlog. Each attempt counts, since it is a transaction of its own.
pub(super) fn fate_of_keyless(attempts: u32, now: Timestamp) -> Fate {
    Fate::Waits { attempts, due_at: now.after(KEYLESS_RETRY) }
}

fn in_window(room_id: &str, held: Held) -> (String, Sent) {
    let Held { id, event_id, prev_events, .. } = held;
    (room_id.to_owned(), Sent { event_id, prev_events, carrier: Carrier::Backlog(id) })
}

/// Without a sender nobody can be judged.
fn permits(acls: &[ServerAcl], held: &Held) -> bool {
    acls.is_empty()
        || held.sender.as_ref().is_some_and(|sender| acls.iter().all(|acl| acl.permits(sender)))
}

/// The same for the same events and attempts, so that what is sent again after a restart takes effect once.
fn txn_id(chosen: &[Held]) -> String {
    let mut hash = Sha256::new();
    for held in chosen {
        hash.update(held.event_id.as_bytes());
        hash.update([0]);
        hash.update(held.attempts.to_be_bytes());
    }
    format!("restante-{}", hex(&hash.finalize()))
}

fn waits(reason: &str) -> RoomTurn {
    RoomTurn::Waits { reason: reason.to_owned(), at_most: None }
}

fn nothing_deliverable(held: &[Held], absent: &BTreeSet<String>, now: Timestamp) -> RoomTurn {
    let due = held.iter().map(|held| held.due_at).filter(|due| *due > now).min();
    let named: Vec<&str> = absent.iter().take(NAMED_EVENTS_MAX).map(String::as_str).collect();
    let reason = if named.is_empty() {
        "earlier events are being confirmed, or are tried again later".to_owned()
    } else {
        let more = absent.len().saturating_sub(NAMED_EVENTS_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("it lacks {}{more}", named.join(", "))
    };
    RoomTurn::Waits { reason, at_most: due.map(|due| due.since(now)) }
}
