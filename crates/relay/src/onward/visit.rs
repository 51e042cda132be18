//! One visit to a destination: its mail, one transaction after the other, each origin in its turn.

mod judgement;

use std::time::Duration;

use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_mailbox::{HandedOn, StoreError, StoredEnvelope};
use tokio::time::Instant;

use super::call;
use super::others;
use super::pace::Events;
use super::request::request;
use super::schedule::{Admitted, Call, Ended};
use crate::callers::CameFrom;
use crate::state::RelayState;

/// Transactions of one visit, and the time after which none is begun; then other destinations have their turn.
const TRANSACTIONS_MAX: usize = 200;
const VISIT_MAX: Duration = Duration::from_secs(30);

/// How long the mail of an origin waits for which the relay does not deliver any more. It may register again.
const NOT_SERVED_REST: Duration = Duration::from_secs(3600);

/// Origins that one look finds.
const ORIGINS_PAGE: usize = 100;

/// How long a destination waits whose mail can't be read or written at present.
const STORE_RETRY: Duration = Duration::from_secs(10);

/// How long a destination waits whose mail met a defect.
const DEFECT_RETRY: Duration = Duration::from_secs(600);

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
            Ended::Later(Instant::now() + STORE_RETRY, None)
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
            Ended::Later(now + DEFECT_RETRY, None)
        });
        let (backoff, jitter) = (relay.rules().onward.backoff, relay.dice.fraction());
        relay.onward.memory().schedule.ended(&self.destination, ended, (now, backoff, jitter));
        relay.onward.changed.notify_one();
    }
}

struct Visit<'a> {
    relay: &'a RelayState,
    destination: ServerName,
    begun: Instant,
    /// Behind whom the next origin's turn is.
    after: Option<ServerName>,
    /// Whose turn was last.
    served: Option<ServerName>,
    /// When something that rests may go on.
    later: Option<Instant>,
    tried: usize,
    /// Transactions to which it had a Matrix server's answer.
    answered: usize,
    failed: usize,
    way: Way,
    up: Up,
    admitted: Admitted,
}

/// How mail goes.
enum Way {
    /// To the destination itself.
    Directly,
    /// The destination can't be reached: to relays of its own.
    ByRelays(Vec<Peer>),
}

/// Whether the destination is known to be there: nothing large is sent to whoever does not answer something small.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Up {
    /// It was asked, or took something, in this visit.
    Yes,
    /// It answered lately.
    Lately,
    /// Nothing is known.
    Unknown,
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
    /// The visit ends so.
    Ends(Ended),
}

impl<'a> Visit<'a> {
    fn of(relay: &'a RelayState, call: Call) -> Self {
        let Call { destination, begin_after, admitted } = call;
        let begun = Instant::now();
        let is_up = relay.onward.memory().up.answered_lately(&destination, begun);
        Self {
            relay,
            destination,
            begun,
            after: begin_after.clone(),
            served: begin_after,
            later: None,
            tried: 0,
            answered: 0,
            failed: 0,
            way: Way::Directly,
            up: if is_up { Up::Lately } else { Up::Unknown },
            admitted,
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
                    if self.tried >= TRANSACTIONS_MAX || self.begun.elapsed() >= VISIT_MAX {
                        return Ok(self.ended(Some(Instant::now())));
                    }
                    match self.turn_of(origin).await? {
                        Turn::Done => is_anything_done = true,
                        Turn::Rests(until) => {
                            self.later = Some(self.later.map_or(until, |later| later.min(until)));
                        }
                        Turn::Nothing => {}
                        Turn::Unreachable => {
                            if !self.turn_to_relays().await {
                                self.served = Some(origin.clone());
                                return Ok(Ended::Unreachable(self.served));
                            }
                            is_anything_done = true;
                        }
                        Turn::Ends(ended) => return Ok(ended),
                    }
                }
                if origins.len() < ORIGINS_PAGE {
                    break;
                }
                self.after = origins.last().cloned();
            }
            if is_whole_round && !is_anything_done {
                let later = self.later;
                return Ok(self.ended(later));
            }
        }
    }

    /// Nothing is to be done at present, or it goes on `later`. A destination that could not be reached is called again as any such, though
    /// its relays took all: what comes next waits until then.
    fn ended(self, later: Option<Instant>) -> Ended {
        match (self.way, later) {
            (Way::ByRelays(_), _) => Ended::Unreachable(self.served),
            (Way::Directly, Some(later)) => Ended::Later(later, self.served),
            (Way::Directly, None) => Ended::Drained,
        }
    }

    /// From here on mail goes to the destination's relays, if it has any that were not tried.
    async fn turn_to_relays(&mut self) -> bool {
        if matches!(self.way, Way::ByRelays(_)) {
            return false;
        }
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
        let Some(word) = others::leave(self.relay, relays, &envelope.deposit).await else {
            return Ok(Turn::Unreachable);
        };
        let store = &self.relay.stores.onward;
        if store.hand_on(&self.destination, envelope.id, HandedOn::PassedOn).await? {
            self.relay.counted.onward("passed_on");
        }
        let (destination, id) = (&self.destination, envelope.id.get());
        tracing::info!(mailbox = %destination, %origin, envelope.id = id, ?word, "left with a relay of its recipient's own");
        Ok(Turn::Done)
    }

    /// Tries what `origin` left first.
    async fn turn_of(&mut self, origin: &ServerName) -> Result<Turn, StoreError> {
        if let Some(until) = self.rests_until(origin) {
            return Ok(Turn::Rests(until));
        }
        if !self.is_served(origin).await? {
            return Ok(Turn::Rests(Instant::now() + NOT_SERVED_REST));
        }
        let now = self.relay.clock.now();
        let first = self.relay.stores.onward.first_onward(&self.destination, origin, now).await?;
        let Some(envelope) = first else { return Ok(Turn::Nothing) };
        // What it is sent in is made beside it.
        let mut share = self.relay.request_memory.share(CameFrom(None));
        if share.grow(2 * envelope.deposit.bytes() as usize).is_err() {
            return Ok(Turn::Rests(Instant::now() + STORE_RETRY));
        }
        if let Way::ByRelays(relays) = &self.way {
            self.tried += 1;
            self.served = Some(origin.clone());
            return self.pass_on(relays, origin, &envelope).await;
        }
        let Ok(request) = request(&envelope.deposit) else {
            self.refused(&envelope, "it has no proof that could be sent").await?;
            return Ok(Turn::Done);
        };
        if self.up == Up::Unknown
            && let Some(turn) = self.look(&envelope).await
        {
            return Ok(turn);
        }
        // Typing is of the minute, and looking took a while.
        if envelope.deposit.expires_at < self.relay.clock.now() {
            return Ok(Turn::Done);
        }
        let events = Events::of(&envelope.deposit.content);
        let paced =
            self.relay.onward.memory().pace.admit(&self.destination, &events, Instant::now());
        if let Err(until) = paced {
            return Ok(Turn::Rests(until));
        }
        self.tried += 1;
        self.served = Some(origin.clone());
        match call::send(self.relay, &self.destination, request).await {
            Ok(answer) => self.judge(origin, &envelope, &answer).await,
            Err(reason) => Ok(self.in_vain(origin, &envelope, &reason).await),
        }
    }

    /// Whether the relay delivers for `origin`, which may have left, lapsed, or be served no more.
    async fn is_served(&self, origin: &ServerName) -> Result<bool, StoreError> {
        let terms = self.relay.admission.registrations.terms(origin).await?;
        Ok(self.relay.rules().onward.served.serves(origin, terms.as_deref()))
    }

    /// Asks the destination something small, and says how the turn ends if it does not answer. Others may lead to the same place, and then
    /// each has its turn there.
    async fn look(&mut self, envelope: &StoredEnvelope) -> Option<Turn> {
        let target = self.relay.exchange.leads_to(&self.destination, call::CONNECT_WAIT).await;
        let target = target.unwrap_or_else(|| self.destination.host().to_ascii_lowercase());
        if self.admitted == Admitted::No {
            let admitted = self.relay.onward.memory().targets.admit(&target, Instant::now());
            if let Err((until, admitted)) = admitted {
                return Some(Turn::Ends(Ended::Postponed(until, admitted, self.served.clone())));
            }
            self.admitted = Admitted::Yes;
        }
        if let Err(reason) = call::probe(self.relay, &self.destination).await {
            return Some(self.unreachable(envelope, &reason));
        }
        self.up = Up::Yes;
        let mut memory = self.relay.onward.memory();
        memory.targets.answered(&target);
        memory.up.answered(&self.destination, Instant::now());
        None
    }

    fn rests_until(&self, origin: &ServerName) -> Option<Instant> {
        let now = Instant::now();
        let mut memory = self.relay.onward.memory();
        let rests = memory.rests.until(&self.destination, origin, now);
        rests.max(memory.returns.rests_until(origin, now))
    }

    fn unreachable(&self, envelope: &StoredEnvelope, reason: &str) -> Turn {
        self.relay.counted.onward("unreachable");
        let (origin, id) = (&envelope.deposit.origin, envelope.id.get());
        tracing::debug!(mailbox = %self.destination, %origin, envelope.id = id, reason, "not delivered onward yet");
        Turn::Unreachable
    }
}
