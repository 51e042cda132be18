//! Leaves one transaction with several relays at once.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use restante_federation::{Body, ContentCoding, Outcome, Patience, Peer, signed_request};
use restante_federation_proto::{RequestTarget, ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::{Fullness, REQUEST_ID_HEADER, RequestId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::codings::{Codings, Next};
use super::lanes::{Lane, Lanes};
use super::mail::header_of;
use super::refusals::Refusals;
use super::resting::{self, BUSY_WAIT_MIN, Cause, Place};
use super::schedule::Schedule;
use crate::answer::{self, AskError};
use crate::background::Background;
use crate::site::Site;
use crate::store::ledger::Ledger;

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is left with a relay.
#[derive(Debug)]
pub(crate) struct Deposit {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// The homeserver's id for it.
    pub(crate) txn_id: String,
    /// Its number.
    pub(crate) seq: u64,
    /// The id by which logs name the delivery.
    pub(crate) id: RequestId,
    /// Where at the relay.
    pub(crate) target: RequestTarget,
    /// The body, canonical.
    pub(crate) body: Bytes,
}

/// Why a relay did not take a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The relay.
    pub(crate) relay: ServerName,
    /// Whose mail it was for.
    pub(crate) destination: ServerName,
    /// What it said, or what came between.
    pub(crate) reason: String,
    /// Which bound was met, if it says so.
    pub(crate) full: Option<Fullness>,
    /// Until when it is not asked again for what the bound concerns.
    pub(crate) rests_until: Option<Timestamp>,
    /// Whether the same may succeed later.
    pub(crate) lasting: Lasting,
    /// When.
    pub(crate) at: Timestamp,
}

/// Whether a refusal may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// The relay can't be reached, or has no room now.
    Temporary,
    /// Somebody has to change something.
    Permanent,
}

/// Leaves transactions with relays. Clones share its limits.
#[derive(Clone)]
pub(crate) struct Deposits {
    site: Site,
    ledger: Ledger,
    background: Background,
    lanes: Arc<Lanes>,
    refusals: Arc<Mutex<Refusals>>,
    codings: Arc<Codings>,
    schedule: Adjustable<Schedule>,
}

impl Deposits {
    /// Each relay gets the time that `schedule` says.
    pub(crate) fn new(
        site: Site,
        ledger: Ledger,
        background: Background,
        schedule: Adjustable<Schedule>,
    ) -> Self {
        Self {
            site,
            ledger,
            background,
            lanes: Arc::default(),
            refusals: Arc::default(),
            codings: Arc::default(),
            schedule,
        }
    }

    /// Leaves `deposit` with all `relays` at once, and enters in the ledger who took it. What the caller no longer
    /// waits for goes on.
    pub(crate) fn start(
        &self,
        deposit: Arc<Deposit>,
        relays: Vec<Peer>,
    ) -> mpsc::Receiver<Result<ServerName, Refusal>> {
        let (told, results) = mpsc::channel(relays.len().max(1));
        for relay in relays {
            let (deposits, deposit, told) = (self.clone(), deposit.clone(), told.clone());
            self.background.spawn(async move {
                let result = deposits.leave(&deposit, &relay).await;
                // The caller may have its answer already.
                told.send(result).await.ok();
            });
        }
        results
    }

    /// The last refusal of each relay for each destination for which it has taken nothing since.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.lock().all()
    }

    async fn leave(&self, deposit: &Deposit, relay: &Peer) -> Result<ServerName, Refusal> {
        let place = Place::of(relay);
        let deadline = Instant::now() + self.schedule.current().relay_deadline();
        loop {
            let lane = self.lane(deposit, (relay, &place), deadline).await?;
            let patience = deadline.saturating_duration_since(Instant::now());
            let asked = timeout_at(deadline, self.ask(deposit, relay, patience)).await;
            drop(lane);
            let answer = match asked.unwrap_or(Err(AskError::Slow)) {
                Ok(answer) => answer,
                Err(AskError::Slow) => {
                    let cause = Cause::unanswered(format!("no answer within {patience:.0?}"));
                    return Err(self.refused(deposit, (relay, place), cause));
                }
                Err(error) => {
                    let cause = Cause::unanswered(error.text());
                    return Err(self.refused(deposit, (relay, place), cause));
                }
            };
            let full = answer.full();
            let (lasting, retry_after) = match answer.outcome() {
                Outcome::Delivered => {
                    self.took(deposit, (relay, &place)).await;
                    return Ok(relay.name.clone());
                }
                Outcome::Busy { retry_after } => {
                    let wait = retry_after.max(BUSY_WAIT_MIN);
                    let is_in_time = wait < deadline.saturating_duration_since(Instant::now());
                    if is_in_time && resting::is_asked_again(&place, full) {
                        sleep(wait).await;
                        continue;
                    }
                    (Lasting::Temporary, Some(retry_after))
                }
                Outcome::Temporary => (Lasting::Temporary, None),
                Outcome::Permanent => (Lasting::Permanent, None),
            };
            let word = resting::word(answer.status, &answer.refusal());
            let cause = Cause { reason: answer.summary(), lasting, full, retry_after, word };
            return Err(self.refused(deposit, (relay, place), cause));
        }
    }

    /// Waits until the relay may be asked, for half of the time that is left: whoever is asked has the other half for its
    /// answer. What was not asked is not blamed on the relay.
    async fn lane(
        &self,
        deposit: &Deposit,
        (relay, place): (&Peer, &Place),
        deadline: Instant,
    ) -> Result<Lane, Refusal> {
        self.check_rest(deposit, place)?;
        let wait = deadline.saturating_duration_since(Instant::now()) / 2;
        let lane = timeout(wait, self.lanes.take(&deposit.destination, place)).await;
        let lane = lane.map_err(|_| self.not_asked(deposit, relay))?;
        // Those before it in the lane may have found that nobody is there.
        self.check_rest(deposit, place)?;
        Ok(lane)
    }

    /// What the relay said, if it is not to be asked again yet.
    fn check_rest(&self, deposit: &Deposit, place: &Place) -> Result<(), Refusal> {
        match self.lock().resting(place, &deposit.destination, Instant::now()) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    async fn ask(
        &self,
        deposit: &Deposit,
        relay: &Peer,
        patience: Duration,
    ) -> Result<answer::Answer, AskError> {
        let patience = Patience { connect: patience, answer: patience };
        loop {
            let (request, coding) = self.request(deposit, relay);
            let exchange = &*self.site.exchange;
            let answer = answer::ask(exchange, relay, request, patience, ANSWER_BYTES_MAX).await;
            // Once at most: what is sent again is not coded.
            if self.codings.hear(relay, coding, &answer, Instant::now()) == Next::Done {
                return answer;
            }
        }
    }

    fn request(&self, deposit: &Deposit, relay: &Peer) -> (Request<Body>, ContentCoding) {
        let (body, target) = (Some(deposit.body.clone()), &deposit.target);
        let identity = &self.site.identity;
        let mut request = signed_request(identity, Method::PUT, target, &relay.name, body);
        request.headers_mut().insert(REQUEST_ID_HEADER, header_of(&deposit.id));
        let coding = self.codings.fill(&mut request, relay, deposit.body.clone());
        (request, coding)
    }

    async fn took(&self, deposit: &Deposit, (relay, place): (&Peer, &Place)) {
        let Deposit { destination, txn_id, seq, id, .. } = deposit;
        self.lock().took(place, destination);
        tracing::info!(%destination, txn_id, seq, delivery.id = %id, relay = %relay.name, "left with a relay");
        let now = self.site.clock.now();
        // The name is enough, although a record may borrow a name for another place: what is entered concerns mail for the
        // server alone that signed the record and so chose that place.
        let entered = self.ledger.held_by(destination.clone(), *seq, relay.name.clone(), now);
        if let Err(error) = entered.await {
            // The relay has it all the same; it is only asked once more if the homeserver repeats it.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, txn_id, relay = %relay.name, "not entered in the ledger");
        }
    }

    fn refused(&self, deposit: &Deposit, (relay, place): (&Peer, Place), cause: Cause) -> Refusal {
        let Deposit { destination, txn_id, id, .. } = deposit;
        let (rest, reach) = (resting::rest_after(&place, &cause), resting::reach(&place, &cause));
        let Cause { reason, lasting, full, .. } = cause;
        tracing::warn!(%destination, txn_id, delivery.id = %id, relay = %relay.name, reason, ?lasting, full = full.map(Fullness::as_str), "the relay did not take it");
        let at = self.site.clock.now();
        let refusal = Refusal {
            relay: relay.name.clone(),
            destination: destination.clone(),
            reason,
            full,
            rests_until: rest.map(|rest| at.after(rest)),
            lasting,
            at,
        };
        let now = Instant::now();
        let rests_until = rest.map(|rest| now + rest);
        self.lock().note(place, (refusal.clone(), reach), rests_until, now);
        refusal
    }

    /// Nothing is remembered of it: the relay was not asked.
    fn not_asked(&self, deposit: &Deposit, relay: &Peer) -> Refusal {
        let Deposit { destination, txn_id, id, .. } = deposit;
        tracing::warn!(%destination, txn_id, delivery.id = %id, relay = %relay.name, "the relay was not asked: too many deposits are under way");
        Refusal {
            relay: relay.name.clone(),
            destination: destination.clone(),
            reason: "not asked, since too many deposits are under way".to_owned(),
            full: None,
            rests_until: None,
            lasting: Lasting::Temporary,
            at: self.site.clock.now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().expect("nothing panics while it holds the refusals")
    }
}
