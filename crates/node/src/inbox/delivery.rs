//! Delivers the mail of each origin to the homeserver, one envelope at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::mail::StreamPlace;
use super::order::{self, Next};
use super::readiness::{self, RoomEvent};
use super::schedule::{Schedule, Turn};
use super::transaction::{Pdu, Transaction};
use super::window::Sent;
use crate::homeserver::{Presence, Replayed, Unavailable};
use crate::store::inbox::{self as rows, Envelope, Settled};
use crate::store::rooms;

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
            Next::Deliver(id) => self.deliver(origin, id).await,
            Next::WaitForHole { id, missing, until } => {
                let reason = hole_reason(missing);
                rows::wait(self.database(), id, reason).await?;
                self.shared.relays_wanted.send_modify(|count| *count += 1);
                Ok(Some(Turn::ForRelays(until.since(self.now()))))
            }
        }
    }

    async fn deliver(&self, origin: &ServerName, id: i64) -> Result<Option<Turn>, StoreError> {
        let Some(envelope) = rows::load(self.database(), id).await? else {
            tracing::error!(%origin, id, "an envelope waits without a proof; it can't be delivered");
            return Ok(Some(Turn::Nothing));
        };
        let pdus = match self.pdus(&envelope.content).await? {
            Ok(pdus) => pdus,
            Err(error) => {
                self.waits_for(&envelope, error.to_string()).await?;
                return Ok(Some(Turn::Retry(None)));
            }
        };
        if let Some(turn) = self.unready(origin, &envelope, &pdus).await? {
            return Ok(Some(turn));
        }
        let counts = counts(&pdus);
        if let Some(turn) = self.reserve(&envelope, &counts) {
            return Ok(Some(turn));
        }
        let (uri, authorization) = &envelope.proof;
        let replay = self.site().homeserver.replay(uri, authorization, envelope.content.clone());
        let replayed = replay.await;
        let turn = self.replayed(origin, &envelope, pdus, replayed).await;
        self.state().delivering.remove(&envelope.id);
        self.state().confirmations.release(&counts);
        turn
    }

    /// The envelope's PDUs with their ids; inner error when the homeserver can't be asked.
    async fn pdus(&self, content: &[u8]) -> Result<Result<Vec<Pdu>, Unavailable>, StoreError> {
        let transaction = Transaction::parse(content);
        let wanted = transaction.rooms();
        let mut versions = rooms::versions(self.database(), wanted.clone()).await?;
        for room_id in wanted {
            if versions.contains_key(&room_id) {
                continue;
            }
            match self.site().homeserver.room_version(&room_id).await {
                Ok(Some(version)) => {
                    rooms::remember(self.database(), room_id.clone(), version.clone()).await?;
                    versions.insert(room_id, version);
                }
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(transaction.pdus(&versions)))
    }

    /// How the turn ends when some room is not ready.
    async fn unready(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: &[Pdu],
    ) -> Result<Option<Turn>, StoreError> {
        let questions = {
            let state = self.state();
            readiness::questions(pdus, |event| state.confirmations.delivered(event))
        };
        let answers = match self.ask(questions, pdus).await {
            Ok(answers) => answers,
            Err(error) => {
                self.waits_for(envelope, error.to_string()).await?;
                return Ok(Some(Turn::Retry(None)));
            }
        };
        let missing = readiness::missing(&answers);
        // The homeserver fetches what it misses from an origin that it can reach.
        if missing.is_empty() || self.site().destinations.reachable(origin).await {
            return Ok(None);
        }
        self.waits_for(envelope, missing_reason(&missing, &answers)).await?;
        let rooms = missing.keys().map(|room| (*room).to_owned()).collect();
        Ok(Some(Turn::ForRooms(rooms)))
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
                self.taken(origin, envelope, pdus, &refused).await?;
                Ok(None)
            }
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
        let failures: Vec<String> =
            refused.iter().map(|(event_id, error)| format!("{event_id}: {error}")).collect();
        let stored = |pdu: &Pdu| pdu.event_id.as_ref().is_some_and(|id| !refused.contains_key(id));
        let events = sent(envelope.id, pdus.into_iter().filter(stored));
        if events.is_empty() {
            return self.settle(origin, envelope, finished(&failures)).await;
        }
        let reason = (!failures.is_empty()).then(|| failures.join("; "));
        self.settle(origin, envelope, Settled::Delivered(reason)).await?;
        let now = self.elapsed();
        let envelope = (envelope.id, origin.clone());
        self.state().confirmations.sent(envelope, failures, events, now);
        self.shared.looks_due.notify_one();
        Ok(())
    }

    async fn settle(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        settled: Settled,
    ) -> Result<(), StoreError> {
        let place: Option<StreamPlace> = envelope.place.clone();
        let is_gone = settled == Settled::Confirmed;
        let row = (envelope.id, origin.clone(), place);
        let bytes = rows::settle(self.database(), row, settled, self.now()).await?;
        let mut state = self.state();
        state.load.waits_no_longer(origin);
        if is_gone {
            state.confirmed(origin, bytes);
        }
        Ok(())
    }

    async fn waits_for(&self, envelope: &Envelope, reason: String) -> Result<(), StoreError> {
        if envelope.reason.as_ref() == Some(&reason) {
            return Ok(());
        }
        rows::wait(self.database(), envelope.id, reason).await
    }

    /// What was taken before a restart is looked for again.
    pub(super) async fn restore_unconfirmed(&self) -> Result<(), StoreError> {
        for delivered in rows::delivered(self.database()).await? {
            let transaction = Transaction::parse(&delivered.content);
            let versions = rooms::versions(self.database(), transaction.rooms()).await?;
            let pdus = transaction.pdus(&versions).into_iter();
            let failures: Vec<String> = delivered.reason.into_iter().collect();
            let refused = |pdu: &Pdu| {
                let id = pdu.event_id.as_deref().unwrap_or_default();
                failures.iter().any(|failure| failure.contains(id))
            };
            let events = sent(delivered.id, pdus.filter(|pdu| !refused(pdu)));
            let row = (delivered.id, delivered.origin);
            if events.is_empty() {
                let (id, origin) = row;
                let now = self.now();
                rows::settle(self.database(), (id, origin, None), finished(&failures), now).await?;
            } else {
                self.state().confirmations.sent(row, failures, events, Timestamp::EPOCH);
            }
        }
        Ok(())
    }
}

fn sent(envelope: i64, pdus: impl Iterator<Item = Pdu>) -> Vec<(String, Sent)> {
    pdus.filter_map(|pdu| {
        let event_id = pdu.event_id?;
        Some((pdu.room_id, Sent { event_id, prev_events: pdu.prev_events, envelope }))
    })
    .collect()
}

pub(super) fn finished(failures: &[String]) -> Settled {
    if failures.is_empty() { Settled::Confirmed } else { Settled::Parked(failures.join("; ")) }
}

fn counts(pdus: &[Pdu]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pdu in pdus.iter().filter(|pdu| pdu.event_id.is_some()) {
        *counts.entry(pdu.room_id.clone()).or_default() += 1;
    }
    counts
}

fn hole_reason(missing: (Option<u64>, u64)) -> String {
    match missing {
        (Some(first), last) if first == last => {
            format!("number {last} of its stream is missing; the relays are asked for it")
        }
        (Some(first), last) => {
            format!(
                "numbers {first} to {last} of its stream are missing; the relays are asked for them"
            )
        }
        (None, _) => {
            "first mail of this stream; the relays are asked whether older mail waits".into()
        }
    }
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
