//! One visit to a destination: its mail, one transaction after the other, each origin in its turn.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Request, StatusCode};
use restante_federation::{Body, MatrixRefusal, Outcome, Patience, Peer, collect_limited, outcome};
use restante_federation_proto::ServerName;
use restante_mailbox::{HandedOn, StoreError, StoredEnvelope};
use tokio::time::{Instant, timeout};

use super::others;
use super::pace::Events;
use super::request::request;
use super::rests::Unverified;
use super::schedule::{Call, Ended};
use crate::state::RelayState;

/// Transactions of one visit; then other destinations have their turn.
const TRANSACTIONS_MAX: usize = 200;

/// Origins that one look finds.
const ORIGINS_PAGE: usize = 100;

/// How long a destination may take: a stock homeserver works on what it takes before it answers.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(60) };

/// Bytes of an answer: an entry for each of 50 PDUs, with an error text.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A busy destination is left alone for at least this, and at most that.
const BUSY_MIN: Duration = Duration::from_secs(1);
const BUSY_MAX: Duration = Duration::from_secs(3600);

/// How long a destination waits whose mail can't be read or written at present.
const STORE_RETRY: Duration = Duration::from_secs(10);

/// How long a destination waits whose mail met a defect.
const DEFECT_RETRY: Duration = Duration::from_secs(600);

/// Characters of a destination's text that are logged.
const TEXT_CHARS_MAX: usize = 200;

/// What becomes of attempts, in metrics.
pub(crate) const OUTCOMES: [&str; 6] =
    ["delivered", "passed_on", "refused", "busy", "unverified", "unreachable"];

/// Calls the destination and says how that ended.
pub(crate) async fn visit(relay: RelayState, call: Call) {
    let mut under_way =
        UnderWay { relay: &relay, destination: call.destination.clone(), ended: None };
    let ended = match Visit::of(&relay, call).run().await {
        Ok(ended) => ended,
        Err(error) => {
            let (destination, error) = (&under_way.destination, &error as &dyn std::error::Error);
            tracing::warn!(%destination, error, "onward delivery stopped; it goes on later");
            Ended::Later(Instant::now() + STORE_RETRY)
        }
    };
    under_way.ended = Some(ended);
}

/// A visit, whose place is given back however it ends: a defect that one destination's mail meets must not use up all places.
struct UnderWay<'a> {
    relay: &'a RelayState,
    destination: ServerName,
    ended: Option<Ended>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let (relay, now) = (self.relay, Instant::now());
        let ended = self.ended.take().unwrap_or_else(|| {
            if !relay.shutdown.is_cancelled() {
                tracing::error!(destination = %self.destination, "onward delivery broke off; it begins anew later");
            }
            Ended::Later(now + DEFECT_RETRY)
        });
        let (backoff, jitter) = (relay.rules().onward.backoff, relay.dice.fraction());
        relay.onward.memory().schedule.ended(&self.destination, ended, (now, backoff, jitter));
        relay.onward.changed.notify_one();
    }
}

struct Visit<'a> {
    relay: &'a RelayState,
    destination: ServerName,
    /// Behind whom the next origin's turn is.
    after: Option<ServerName>,
    /// When something that rests may go on.
    later: Option<Instant>,
    tried: usize,
    way: Way,
    /// Whose mail met nobody.
    failed: Option<ServerName>,
}

/// How mail goes.
enum Way {
    /// To the destination itself.
    Directly,
    /// The destination can't be reached: to relays of its own.
    ByRelays(Vec<Peer>),
}

/// What became of one origin's turn.
enum Turn {
    /// Something left, or will not be tried again.
    Done,
    /// Nothing was to be done before this.
    Rests(Instant),
    /// There was nothing.
    Nothing,
    /// Nobody answered who could take it.
    Unreachable,
}

impl<'a> Visit<'a> {
    fn of(relay: &'a RelayState, call: Call) -> Self {
        let Call { destination, begin_after } = call;
        Self {
            relay,
            destination,
            after: begin_after,
            later: None,
            tried: 0,
            way: Way::Directly,
            failed: None,
        }
    }

    /// Goes round the origins until all are done, or rest.
    async fn run(mut self) -> Result<Ended, StoreError> {
        loop {
            let is_whole_round = self.after.is_none();
            let mut is_anything_done = false;
            loop {
                let store = &self.relay.stores.onward;
                let after = self.after.take();
                let origins =
                    store.awaiting(&self.destination, after.as_ref(), ORIGINS_PAGE).await?;
                for origin in &origins {
                    if self.tried >= TRANSACTIONS_MAX {
                        return Ok(Ended::Later(Instant::now()));
                    }
                    match self.turn_of(origin).await? {
                        Turn::Done => is_anything_done = true,
                        Turn::Rests(until) => {
                            self.later = Some(self.later.map_or(until, |later| later.min(until)));
                        }
                        Turn::Nothing => {}
                        Turn::Unreachable => {
                            if !self.turn_to_relays(origin).await {
                                return Ok(Ended::Unreachable(origin.clone()));
                            }
                            is_anything_done = true;
                        }
                    }
                }
                if origins.len() < ORIGINS_PAGE {
                    break;
                }
                self.after = origins.last().cloned();
            }
            if is_whole_round && !is_anything_done {
                return Ok(self.ended());
            }
        }
    }

    /// Nothing is to be done at present. A destination that could not be reached is called again as any such, though its relays took
    /// all: what comes next waits until then.
    fn ended(self) -> Ended {
        match (self.way, self.failed) {
            (Way::ByRelays(_), Some(origin)) => Ended::Unreachable(origin),
            _ => self.later.map_or(Ended::Drained, Ended::Later),
        }
    }

    /// From here on mail goes to the destination's relays, if it has any that were not tried.
    async fn turn_to_relays(&mut self, failed: &ServerName) -> bool {
        if matches!(self.way, Way::ByRelays(_)) {
            return false;
        }
        self.failed = Some(failed.clone());
        let relays = others::relays_of(self.relay, &self.destination).await;
        let are_any = !relays.is_empty();
        self.way = Way::ByRelays(relays);
        are_any
    }

    /// Leaves with the destination's relays what `origin` left first.
    async fn pass_on(
        &self,
        relays: &[Peer],
        origin: &ServerName,
        envelope: &StoredEnvelope,
    ) -> Result<Turn, StoreError> {
        if !others::leave(self.relay, relays, &envelope.deposit).await {
            return Ok(Turn::Unreachable);
        }
        let store = &self.relay.stores.onward;
        if store.hand_on(&self.destination, envelope.id, HandedOn::PassedOn).await? {
            self.relay.counted.onward("passed_on");
        }
        let (destination, id) = (&self.destination, envelope.id.get());
        tracing::info!(mailbox = %destination, %origin, envelope.id = id, "left with a relay of its recipient's own");
        Ok(Turn::Done)
    }

    /// Tries what `origin` left first.
    async fn turn_of(&mut self, origin: &ServerName) -> Result<Turn, StoreError> {
        if let Some(until) = self.rests_until(origin) {
            return Ok(Turn::Rests(until));
        }
        let first = self.relay.stores.onward.first_onward(&self.destination, origin).await?;
        let Some(envelope) = first else { return Ok(Turn::Nothing) };
        self.tried += 1;
        if let Way::ByRelays(relays) = &self.way {
            return self.pass_on(relays, origin, &envelope).await;
        }
        let Ok(request) = request(&envelope.deposit) else {
            self.refused(&envelope, "it has no proof that could be sent").await?;
            return Ok(Turn::Done);
        };
        let events = Events::of(&envelope.deposit.content);
        let paced =
            self.relay.onward.memory().pace.admit(&self.destination, &events, Instant::now());
        if let Err(until) = paced {
            return Ok(Turn::Rests(until));
        }
        match self.ask(request).await {
            Ok(answer) => self.judge(origin, &envelope, &answer).await,
            Err(reason) => Ok(self.unreachable(&envelope, &reason)),
        }
    }

    fn rests_until(&self, origin: &ServerName) -> Option<Instant> {
        let now = Instant::now();
        let mut memory = self.relay.onward.memory();
        let rests = memory.rests.until(&self.destination, origin, now);
        rests.max(memory.returns.rests_until(origin, now))
    }

    async fn judge(
        &self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
        answer: &Answer,
    ) -> Result<Turn, StoreError> {
        let now = Instant::now();
        match outcome(answer.status, &answer.refusal, answer.retry_after) {
            Outcome::Delivered => {
                self.delivered(origin, envelope).await?;
                Ok(Turn::Done)
            }
            Outcome::Busy { retry_after } => {
                self.relay.counted.onward("busy");
                let until = now + retry_after.clamp(BUSY_MIN, BUSY_MAX);
                self.relay.onward.memory().rests.rest(&self.destination, origin, until);
                Ok(Turn::Rests(until))
            }
            Outcome::Temporary => Ok(self.unreachable(envelope, &answer.summary())),
            Outcome::Permanent if answer.status == StatusCode::UNAUTHORIZED => {
                self.unverified(origin, envelope, answer).await
            }
            Outcome::Permanent => {
                self.refused(envelope, &answer.summary()).await?;
                Ok(Turn::Done)
            }
        }
    }

    async fn delivered(
        &self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
    ) -> Result<(), StoreError> {
        self.relay.onward.memory().rests.took(&self.destination, origin);
        let store = &self.relay.stores.onward;
        let was_there = store.hand_on(&self.destination, envelope.id, HandedOn::Delivered).await?;
        if was_there {
            self.relay.counted.onward("delivered");
        }
        let (destination, id) = (&self.destination, envelope.id.get());
        tracing::info!(mailbox = %destination, %origin, envelope.id = id, "delivered onward");
        Ok(())
    }

    async fn unverified(
        &self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
        answer: &Answer,
    ) -> Result<Turn, StoreError> {
        self.relay.counted.onward("unverified");
        let (backoff, jitter) = (self.relay.rules().onward.backoff, self.relay.dice.fraction());
        let rests = self.relay.onward.memory().rests.unverified(
            &self.destination,
            origin,
            (Instant::now(), backoff, jitter),
        );
        match rests {
            Unverified::Rests(until) => Ok(Turn::Rests(until)),
            Unverified::GivenUp => {
                self.refused(envelope, &answer.summary()).await?;
                Ok(Turn::Done)
            }
        }
    }

    /// It stays where it is, and its recipient may collect it.
    async fn refused(&self, envelope: &StoredEnvelope, reason: &str) -> Result<(), StoreError> {
        self.relay.stores.onward.refuse_onward(&self.destination, envelope.id).await?;
        self.relay.counted.onward("refused");
        let (origin, id) = (&envelope.deposit.origin, envelope.id.get());
        tracing::warn!(mailbox = %self.destination, %origin, envelope.id = id, reason, "its recipient refused it; it waits to be collected");
        Ok(())
    }

    fn unreachable(&self, envelope: &StoredEnvelope, reason: &str) -> Turn {
        self.relay.counted.onward("unreachable");
        let (origin, id) = (&envelope.deposit.origin, envelope.id.get());
        tracing::debug!(mailbox = %self.destination, %origin, envelope.id = id, reason, "not delivered onward yet");
        Turn::Unreachable
    }

    /// Calls the destination by the name that its origin gave it, which is a stranger's word.
    async fn ask(&self, request: Request<Body>) -> Result<Answer, String> {
        let peer = Peer::of_stranger(self.destination.clone(), None);
        let whole = async {
            let answered = self.relay.exchange.exchange(&peer, request, PATIENCE).await;
            let (head, body) = answered.map_err(|error| error.to_string())?.into_parts();
            let body = collect_limited(body, ANSWER_BYTES_MAX).await;
            let body = body.map_err(|error| error.to_string())?;
            let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| {
                value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
            });
            let refusal = match head.status.is_success() {
                true => MatrixRefusal::default(),
                false => MatrixRefusal::parse(&body),
            };
            Ok(Answer { status: head.status, refusal, retry_after })
        };
        let deadline = PATIENCE.connect + PATIENCE.answer;
        timeout(deadline, whole).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
    }
}

/// What the destination said.
struct Answer {
    status: StatusCode,
    refusal: MatrixRefusal,
    retry_after: Option<Duration>,
}

impl Answer {
    fn summary(&self) -> String {
        let code = self.refusal.errcode.as_deref().unwrap_or("no Matrix error");
        let text = self.refusal.error.as_deref().unwrap_or_default();
        let printable = format!("{code} {text}");
        let printable = printable.chars().filter(|character| !character.is_control());
        let text: String = printable.take(TEXT_CHARS_MAX).collect();
        format!("{} {text}", self.status.as_u16())
    }
}
