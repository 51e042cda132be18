//! Delivers an origin's next envelope to the homeserver, or finds out what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

use super::Inbox;
use super::apart::{GROWN, PROOFLESS};
use super::gap::{Gap, gap};
use super::grown;
use super::load::{Class, Weight};
use super::mail::StreamPlace;
use super::order::{self, HOLE_WAIT_MAX, Head, Next};
use super::others_first::First;
use super::readiness::{self, RoomEvent};
use super::schedule::Turn;
use super::stream_holes::hole_reason;
use super::transaction::Pdu;
use super::window::{Carrier, Sent};
use crate::homeserver::{Presence, Replayed, Unavailable};
use crate::store::checksum::DAMAGED;
use crate::store::inbox::{self as rows, Envelope, Settled, Settling};

/// How long mail behind a hole waits for other mail of its origin to be verified: one look for a key, and some more.
const JUDGING_WAIT_MAX: Duration = Duration::from_secs(30);

/// Missing events that a reason names.
const NAMED_EVENTS_MAX: usize = 3;

/// Whether an envelope may be delivered.
enum Readiness {
    /// It waits.
    Waits(Turn),
    /// It may, with the events of these rooms set aside.
    Ready { aside: BTreeSet<String> },
}

impl Inbox {
    /// Delivers the next envelope of `origin`; `None` when it is settled, else how the turn ends.
    pub(super) async fn deliver_next(
        &self,
        origin: &ServerName,
    ) -> Result<Option<Turn>, StoreError> {
        let passing = {
            let mut state = self.state();
            state.waits_for_rooms.remove(origin);
            state.load.passing_wait(origin, self.elapsed())
        };
        if !passing.is_zero() {
            return Ok(Some(Turn::ForRelays(passing)));
        }
        let heads = rows::heads(self.database(), origin.clone()).await?;
        match order::next(&heads, self.relays_heard(), self.now()) {
            Next::Nothing => {
                self.state().holes_reported.remove(origin);
                Ok(Some(Turn::Nothing))
            }
            Next::Deliver(id) => {
                let head = heads.iter().find(|head| head.id == id);
                if let Some(wait) = self.wait_for_judging(origin, head) {
                    return Ok(Some(Turn::ForRelays(wait)));
                }
                self.report_hole(origin, head).await?;
                self.deliver(origin, id).await
            }
            Next::WaitForHole { id, missing, until } => {
                let reason = hole_reason(missing);
                rows::wait(self.database(), id, reason).await?;
                self.ask_relays(until.before(HOLE_WAIT_MAX));
                Ok(Some(Turn::ForRelays(until.since(self.now()))))
            }
        }
    }

    /// How long to wait, because what is missing before `head` may be among the mail that is being verified.
    fn wait_for_judging(&self, origin: &ServerName, head: Option<&Head>) -> Option<Duration> {
        let head = head.filter(|head| head.is_behind_hole())?;
        let left = head.arrived_at.after(JUDGING_WAIT_MAX).since(self.now()).min(JUDGING_WAIT_MAX);
        let state = self.state();
        let is_judged = state.to_judge.contains(origin) || state.judging.contains(origin);
        (is_judged && !left.is_zero()).then_some(left)
    }

    async fn deliver(&self, origin: &ServerName, id: i64) -> Result<Option<Turn>, StoreError> {
        let Some(envelope) = rows::load(self.database(), id).await? else {
            tracing::error!(%origin, id, "an envelope that should wait does not");
            return Ok(Some(Turn::Nothing));
        };
        if !envelope.is_whole {
            tracing::error!(%origin, id, "an envelope is damaged and parked; check the disk");
            self.settle(origin, (&envelope, &[]), Settled::Parked(DAMAGED.to_owned())).await?;
            return Ok(None);
        }
        let pdus = match self.pdus(&envelope.content).await? {
            Ok(pdus) => pdus,
            Err(error) => {
                self.waits_for(&envelope, error.to_string()).await?;
                return Ok(Some(Turn::Retry(None)));
            }
        };
        let Some((uri, authorization)) = &envelope.proof else {
            self.take_apart(origin, &envelope, &pdus, (PROOFLESS, &[])).await?;
            return Ok(None);
        };
        let key = (envelope.id, origin.clone(), envelope.txn_id.clone());
        let twins = rows::twins(self.database(), key).await?;
        match grown::delivered(&envelope.content, &twins) {
            grown::Delivered::Whole => {}
            grown::Delivered::WithAnother => {
                self.settle(origin, (&envelope, &pdus), Settled::Superseded).await?;
                return Ok(None);
            }
            grown::Delivered::Apart => {
                self.take_apart(origin, &envelope, &pdus, (GROWN, &twins.delivered_edus)).await?;
                return Ok(None);
            }
            grown::Delivered::Already => {
                self.taken(origin, &envelope, pdus, &BTreeMap::new()).await?;
                return Ok(None);
            }
        }
        let aside = match self.readiness(origin, &envelope, &pdus).await? {
            Readiness::Waits(turn) => return Ok(Some(turn)),
            Readiness::Ready { aside } => aside,
        };
        self.set_aside(origin, &envelope, &pdus, &aside).await?;
        let pdus: Vec<Pdu> = pdus.into_iter().filter(|pdu| !aside.contains(&pdu.room_id)).collect();
        let counts = counts(&pdus);
        let full = self.state().confirmations.full_rooms(&counts);
        if !full.is_empty() {
            return Ok(Some(Turn::ForRooms(full.into_iter().collect())));
        }
        let _places = self.take_places(counts, Some(envelope.id));
        let replay = self.site().homeserver.replay(uri, authorization, envelope.content.clone());
        let replayed = replay.await;
        self.replayed(origin, &envelope, pdus, replayed).await
    }

    /// Whether the envelope may be delivered, and which rooms' events are set aside then.
    async fn readiness(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: &[Pdu],
    ) -> Result<Readiness, StoreError> {
        let questions = {
            let state = self.state();
            readiness::questions(pdus, |event| state.confirmations.delivered(event))
        };
        let answers = match self.ask(questions, pdus).await {
            Ok(answers) => answers,
            Err(error) => {
                self.waits_for(envelope, error.to_string()).await?;
                return Ok(Readiness::Waits(Turn::Retry(None)));
            }
        };
        let missing = readiness::missing(&answers);
        if missing.is_empty() {
            return Ok(Readiness::Ready { aside: BTreeSet::new() });
        }
        let rooms: BTreeSet<String> = missing.keys().map(|room| (*room).to_owned()).collect();
        if self.site().destinations.reachable(origin).await {
            let is_incomplete = answers.values().any(|is| *is == Presence::Incomplete);
            match self.first(origin, envelope, &rooms).await? {
                // What a join lacks others' mail does not bring.
                _ if is_incomplete => return Ok(Readiness::Ready { aside: BTreeSet::new() }),
                // The homeserver fetches what it misses.
                First::This => return Ok(Readiness::Ready { aside: BTreeSet::new() }),
                First::Aside => return Ok(Readiness::Ready { aside: rooms }),
                First::Others | First::Relays(_) => {}
            }
            self.waits_for(envelope, missing_reason(&missing, &answers)).await?;
            self.state().waits_for_rooms.insert(origin.clone());
            return Ok(Readiness::Waits(Turn::ForOthers(rooms)));
        }
        if self.are_known_to_wait(envelope, &rooms).await? {
            return Ok(Readiness::Ready { aside: rooms });
        }
        let gap_wait = self.shared.settings.current().gap_wait;
        let mut heard = self.relays_heard();
        // What a join lacks comes from another server and not from a relay. Until it has come nothing can be
        // re-wrapped, while a replay helps the homeserver on as soon as the origin can be reached.
        if answers.values().any(|is| *is == Presence::Incomplete) {
            heard.all_drained_at = None;
        }
        match gap(envelope.arrived_at, heard, gap_wait, self.now()) {
            Gap::SetAside => Ok(Readiness::Ready { aside: rooms }),
            Gap::Wait { ask_since, .. } => {
                self.waits_for(envelope, missing_reason(&missing, &answers)).await?;
                self.ask_relays(ask_since);
                self.state().waits_for_rooms.insert(origin.clone());
                Ok(Readiness::Waits(Turn::ForRooms(rooms)))
            }
        }
    }

    /// Whether each of these rooms has a backlog, or what it lacks may have come along.
    async fn are_known_to_wait(
        &self,
        envelope: &Envelope,
        rooms: &BTreeSet<String>,
    ) -> Result<bool, StoreError> {
        let enclosed = self.enclosed(&envelope.capsule).await?;
        let state = self.state();
        let is_enclosed = |room: &str| enclosed.iter().any(|pdu| pdu.room_id == room);
        Ok(rooms.iter().all(|room| state.backlog.contains(room) || is_enclosed(room)))
    }

    async fn ask(
        &self,
        questions: BTreeSet<RoomEvent>,
        pdus: &[Pdu],
    ) -> Result<BTreeMap<RoomEvent, Presence>, Unavailable> {
        let mut answers = BTreeMap::new();
        for (room_id, event_id) in questions {
            // The homeserver knows nothing of a room whose version it does not know.
            let known = pdus.iter().any(|pdu| pdu.room_id == room_id && pdu.event_id.is_some());
            if known {
                let answer = self.site().homeserver.state_ids(&room_id, &event_id).await?;
                answers.insert((room_id, event_id), answer);
            }
        }
        Ok(answers)
    }

    async fn replayed(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: Vec<Pdu>,
        replayed: Replayed,
    ) -> Result<Option<Turn>, StoreError> {
        match replayed {
            Replayed::Taken { refused } => {
                self.state().keyless.remove(origin);
                self.taken(origin, envelope, pdus, &refused).await?;
                Ok(None)
            }
            Replayed::Keyless { reason } => self.keyless(origin, envelope, reason).await,
            Replayed::Refused { reason } => {
                tracing::warn!(%origin, txn_id = envelope.txn_id, delivery.id = envelope.request_id.as_deref(), reason, "the homeserver refused mail; it is parked");
                self.settle(origin, (envelope, &[]), Settled::Parked(reason)).await?;
                Ok(None)
            }
            Replayed::Later { reason, retry_after } => {
                tracing::info!(%origin, txn_id = envelope.txn_id, reason, "delivery is tried again later");
                self.waits_for(envelope, reason).await?;
                Ok(Some(Turn::Retry(retry_after)))
            }
        }
    }

    async fn taken(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: Vec<Pdu>,
        refused: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let Envelope { txn_id, request_id, .. } = envelope;
        tracing::info!(%origin, txn_id, delivery.id = request_id.as_deref(), "delivered to the homeserver");
        self.keep_refused(origin, &pdus, refused).await?;
        self.note_from(origin, &pdus).await;
        {
            let mut state = self.state();
            pdus.iter().filter(|pdu| pdu.is_acl).for_each(|pdu| {
                state.acls.remove(&pdu.room_id);
            });
        }
        let stored = |pdu: &Pdu| pdu.event_id.as_ref().is_some_and(|id| !refused.contains_key(id));
        let events = sent(envelope.id, pdus.into_iter().filter(stored));
        let edus = grown::edu_fingerprints(&envelope.content);
        if events.is_empty() {
            let all = self.pdus_of(&envelope.content).await?;
            return self.settle(origin, (envelope, &all), Settled::DeliveredWhole(edus)).await;
        }
        self.settle(origin, (envelope, &[]), Settled::Delivered(edus)).await?;
        let now = self.elapsed();
        let envelope = (envelope.id, origin.clone());
        self.state().confirmations.sent(envelope, events, now);
        self.shared.looks_due.notify_one();
        Ok(())
    }

    /// The homeserver has these events now, or asks for them: they need not be left for `origin`, who sent them.
    pub(super) async fn note_from(&self, origin: &ServerName, pdus: &[Pdu]) {
        let events = pdus
            .iter()
            .filter_map(|pdu| Some((pdu.event_id.as_deref()?, pdu.prev_events.as_slice())));
        self.site().passed.note_from(origin, events).await;
    }

    pub(super) async fn settle(
        &self,
        origin: &ServerName,
        (envelope, pdus): (&Envelope, &[Pdu]),
        settled: Settled,
    ) -> Result<(), StoreError> {
        let place: Option<StreamPlace> = envelope.place.clone();
        let class = if envelope.proof.is_some() { Class::Proven } else { Class::Unproven };
        let is_gone = !matches!(settled, Settled::Delivered(_) | Settled::Parked(_));
        let row = Settling { id: envelope.id, origin: origin.clone(), place, events: named(pdus) };
        let bytes = rows::settle(self.database(), row, settled, self.now()).await?.bytes;
        self.site().bells.receipts.notify_one();
        let mut state = self.state();
        state.load.waits_no_longer(origin);
        if is_gone {
            state.load.release(origin, class, Weight::of(bytes));
        }
        Ok(())
    }

    pub(super) async fn waits_for(
        &self,
        envelope: &Envelope,
        reason: String,
    ) -> Result<(), StoreError> {
        if envelope.reason.as_ref() == Some(&reason) {
            return Ok(());
        }
        rows::wait(self.database(), envelope.id, reason).await
    }
}

pub(super) fn sent(envelope: i64, pdus: impl Iterator<Item = Pdu>) -> Vec<(String, Sent)> {
    let carrier = Carrier::Envelope(envelope);
    pdus.filter_map(|pdu| {
        let event_id = pdu.event_id?;
        Some((pdu.room_id, Sent { event_id, prev_events: pdu.prev_events, carrier }))
    })
    .collect()
}

/// The events whose ids are known.
pub(super) fn named(pdus: &[Pdu]) -> Vec<RoomEvent> {
    let named = |pdu: &Pdu| Some((pdu.room_id.clone(), pdu.event_id.clone()?));
    pdus.iter().filter_map(named).collect()
}

fn counts(pdus: &[Pdu]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pdu in pdus.iter().filter(|pdu| pdu.event_id.is_some()) {
        *counts.entry(pdu.room_id.clone()).or_default() += 1;
    }
    counts
}

fn missing_reason(
    missing: &BTreeMap<&str, Vec<&str>>,
    answers: &BTreeMap<RoomEvent, Presence>,
) -> String {
    let is_incomplete =
        |room: &str| answers.iter().any(|((of, _), is)| of == room && *is == Presence::Incomplete);
    let rooms = missing.iter().map(|(room, events)| {
        if is_incomplete(room) {
            return format!(
                "the homeserver joined room {room} and does not have its whole state yet"
            );
        }
        let named = events.iter().take(NAMED_EVENTS_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = events.len().saturating_sub(NAMED_EVENTS_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("room {room} lacks {named}{more}")
    });
    rooms.take(NAMED_EVENTS_MAX).collect::<Vec<_>>().join("; ")
}
