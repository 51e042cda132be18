//! Delivers the mail of each origin to the homeserver, one envelope at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::apart::{GROWN, PROOFLESS};
use super::gap::{Gap, gap};
use super::grown;
use super::load::{Class, Weight};
use super::mail::StreamPlace;
use super::order::{self, HOLE_WAIT_MAX, Next};
use super::readiness::{self, RoomEvent};
use super::schedule::{Schedule, Turn};
use super::stream_holes::hole_reason;
use super::transaction::Pdu;
use super::window::{Carrier, Sent};
use crate::homeserver::{Presence, Replayed, Unavailable};
use crate::store::inbox::{self as rows, Envelope, Settled};

/// Origins whose mail is delivered at once: a homeserver does little in parallel.
const ORIGINS_AT_ONCE: usize = 8;

/// Envelopes of one origin before it is the next one's turn.
const ENVELOPES_PER_TURN: usize = 10;

/// How long deliveries under way may take after shutdown is asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// How long mail waits for direct mail of its origin to be answered, in case nothing tells of it.
const PASSING_WAIT: Duration = Duration::from_secs(5);

/// Missing events that a reason names.
const NAMED_EVENTS_MAX: usize = 3;

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    let mut schedule = Schedule::default();
    let mut turns = JoinSet::new();
    loop {
        inbox.tell(&mut schedule);
        while turns.len() < ORIGINS_AT_ONCE
            && let Some(origin) = schedule.begin(Instant::now())
        {
            turns.spawn(turn(inbox.clone(), origin, shutdown.clone()));
        }
        let due = schedule.next_due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = inbox.shared.mail_due.notified() => {}
            Some(ended) = turns.join_next() => match ended {
                Ok((origin, ended)) => {
                    schedule.ended(origin, ended, Instant::now(), rand::random());
                }
                Err(error) => tracing::error!(%error, "a delivery ended early; its mail waits for a restart"),
            },
            () = sleep_until(due), if due.is_some() && turns.len() < ORIGINS_AT_ONCE => {}
        }
    }
    let drained = async { while turns.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("deliveries under way were cut off; they are repeated at the next start");
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn turn(
    inbox: Inbox,
    origin: ServerName,
    shutdown: CancellationToken,
) -> (ServerName, (Turn, usize)) {
    for delivered in 0..ENVELOPES_PER_TURN {
        if shutdown.is_cancelled() {
            return (origin, (Turn::More, delivered));
        }
        match inbox.deliver_next(&origin).await {
            Ok(None) => {}
            Ok(Some(turn)) => return (origin, (turn, delivered)),
            Err(error) => {
                tracing::error!(%origin, %error, "the inbox can't be used; delivery waits");
                return (origin, (Turn::Retry(None), delivered));
            }
        }
    }
    (origin, (Turn::More, ENVELOPES_PER_TURN))
}

/// Whether an envelope may be delivered.
enum Readiness {
    /// It waits.
    Waits(Turn),
    /// It may, with the events of these rooms set aside.
    Ready { aside: BTreeSet<String> },
}

impl Inbox {
    fn tell(&self, schedule: &mut Schedule) {
        let (woken, progressed) = {
            let mut state = self.state();
            (std::mem::take(&mut state.woken), std::mem::take(&mut state.progressed))
        };
        woken.iter().for_each(|origin| schedule.arrived(origin));
        if !progressed.is_empty() {
            schedule.progressed(&progressed);
        }
    }

    /// Delivers the next envelope of `origin`; `None` when it is settled, else how the turn ends.
    async fn deliver_next(&self, origin: &ServerName) -> Result<Option<Turn>, StoreError> {
        if self.state().load.is_passing(origin) {
            return Ok(Some(Turn::ForRelays(PASSING_WAIT)));
        }
        let heads = rows::heads(self.database(), origin.clone()).await?;
        match order::next(&heads, self.relays_heard(), self.now()) {
            Next::Nothing => Ok(Some(Turn::Nothing)),
            Next::Deliver(id) => {
                self.report_hole(origin, heads.iter().find(|head| head.id == id)).await?;
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

    async fn deliver(&self, origin: &ServerName, id: i64) -> Result<Option<Turn>, StoreError> {
        let Some(envelope) = rows::load(self.database(), id).await? else {
            tracing::error!(%origin, id, "an envelope that should wait does not");
            return Ok(Some(Turn::Nothing));
        };
        let pdus = match self.pdus(&envelope.content).await? {
            Ok(pdus) => pdus,
            Err(error) => {
                self.waits_for(&envelope, error.to_string()).await?;
                return Ok(Some(Turn::Retry(None)));
            }
        };
        let Some((uri, authorization)) = &envelope.proof else {
            self.take_apart(origin, &envelope, &pdus, PROOFLESS).await?;
            return Ok(None);
        };
        let key = (envelope.id, origin.clone(), envelope.txn_id.clone());
        match grown::delivered(&envelope.content, &rows::twins(self.database(), key).await?) {
            grown::Delivered::Whole => {}
            grown::Delivered::WithAnother => {
                self.settle(origin, &envelope, Settled::Superseded).await?;
                return Ok(None);
            }
            grown::Delivered::Apart => {
                self.take_apart(origin, &envelope, &pdus, GROWN).await?;
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
        if let Some(turn) = self.reserve(&envelope, &counts) {
            return Ok(Some(turn));
        }
        let replay = self.site().homeserver.replay(uri, authorization, envelope.content.clone());
        let replayed = replay.await;
        let turn = self.replayed(origin, &envelope, pdus, replayed).await;
        self.state().delivering.remove(&envelope.id);
        self.state().confirmations.release(&counts);
        turn
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
        // The homeserver fetches what it misses from an origin that it can reach.
        if missing.is_empty() || self.site().destinations.reachable(origin).await {
            return Ok(Readiness::Ready { aside: BTreeSet::new() });
        }
        let rooms: BTreeSet<String> = missing.keys().map(|room| (*room).to_owned()).collect();
        if self.are_known_to_wait(envelope, &rooms).await? {
            return Ok(Readiness::Ready { aside: rooms });
        }
        let gap_wait = self.shared.settings.gap_wait;
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
        let enclosed = self.enclosed(envelope).await?;
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

    fn reserve(&self, envelope: &Envelope, counts: &BTreeMap<String, usize>) -> Option<Turn> {
        let now = self.elapsed();
        let mut state = self.state();
        let full = state.confirmations.full_rooms(counts);
        if !full.is_empty() {
            return Some(Turn::ForRooms(full.into_iter().collect()));
        }
        state.confirmations.reserve(counts, now);
        state.delivering.insert(envelope.id);
        None
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
                tracing::warn!(%origin, txn_id = envelope.txn_id, reason, "the homeserver refused mail; it is parked");
                self.settle(origin, envelope, Settled::Parked(reason)).await?;
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
        self.park_refused(origin, &pdus, refused).await?;
        self.note_from(origin, &pdus).await;
        {
            let mut state = self.state();
            pdus.iter().filter(|pdu| pdu.is_acl).for_each(|pdu| {
                state.acls.remove(&pdu.room_id);
            });
        }
        let stored = |pdu: &Pdu| pdu.event_id.as_ref().is_some_and(|id| !refused.contains_key(id));
        let events = sent(envelope.id, pdus.into_iter().filter(stored));
        if events.is_empty() {
            return self.settle(origin, envelope, Settled::Confirmed).await;
        }
        self.settle(origin, envelope, Settled::Delivered).await?;
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
        envelope: &Envelope,
        settled: Settled,
    ) -> Result<(), StoreError> {
        let place: Option<StreamPlace> = envelope.place.clone();
        let class = if envelope.proof.is_some() { Class::Proven } else { Class::Unproven };
        let is_gone = matches!(settled, Settled::Confirmed | Settled::Superseded);
        let row = (envelope.id, origin.clone(), place);
        let bytes = rows::settle(self.database(), row, settled, self.now()).await?;
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
