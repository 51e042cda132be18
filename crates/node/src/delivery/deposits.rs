//! Leaves one transaction with several relays at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use restante_federation::{Body, ContentCoding, Patience, Peer, signed_request};
use restante_federation_proto::{RequestTarget, ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::{Fullness, REQUEST_ID_HEADER, RequestId};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::codings::Codings;
use super::mail::header_of;
use super::outcome::Outcome;
use super::resting::{self, BUSY_WAIT_MIN};
use super::schedule::Schedule;
use crate::answer::{self, AskError};
use crate::background::Background;
use crate::site::Site;
use crate::store::ledger::Ledger;

/// Deposits under way in the whole node; each holds its transaction's body in memory, 16 MiB at most.
const UNDER_WAY_MAX: usize = 32;

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Refusals that are remembered: a node knows a few relays, and mail for a few hundred servers waits at a time.
const REFUSALS_MAX: usize = 1024;

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

/// For how long a relay is left alone, and for what.
#[derive(Debug, Clone, Copy)]
struct Rest {
    full: Option<Fullness>,
    time: Duration,
}

/// The last refusals by relay and destination, each with the end of the relay's rest.
type Refusals = BTreeMap<(ServerName, ServerName), (Refusal, Option<Instant>)>;

/// Leaves transactions with relays. Clones share its limits.
#[derive(Clone)]
pub(crate) struct Deposits {
    site: Site,
    ledger: Ledger,
    background: Background,
    under_way: Arc<Semaphore>,
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
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
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
        self.lock().values().map(|(refusal, _)| refusal.clone()).collect()
    }

    async fn leave(&self, deposit: &Deposit, relay: &Peer) -> Result<ServerName, Refusal> {
        if let Some(refusal) = self.rests(&relay.name, &deposit.destination) {
            return Err(refusal);
        }
        let patience = self.schedule.current().relay_deadline();
        let deadline = Instant::now() + patience;
        loop {
            let asked = timeout_at(deadline, self.ask(deposit, relay, patience)).await;
            let answer = match asked.unwrap_or(Err(AskError::Slow)) {
                Ok(answer) => answer,
                Err(AskError::Slow) => {
                    let reason = format!("no answer within {} s", patience.as_secs());
                    return Err(self.refused(deposit, relay, (reason, Lasting::Temporary)));
                }
                Err(error) => {
                    let refused = (error.text(), Lasting::Temporary);
                    return Err(self.refused(deposit, relay, refused));
                }
            };
            let full = answer.full();
            let lasting = match answer.outcome() {
                Outcome::Delivered => {
                    self.took(deposit, relay).await;
                    return Ok(relay.name.clone());
                }
                Outcome::Busy { retry_after } => {
                    if let Some(full) = full {
                        let refused = (answer.summary(), Lasting::Temporary);
                        let rest = Rest { full: Some(full), time: resting::rest(retry_after) };
                        return Err(self.rests_after(deposit, relay, refused, Some(rest)));
                    }
                    let wait = retry_after.max(BUSY_WAIT_MIN);
                    if Instant::now() + wait < deadline {
                        sleep(wait).await;
                        continue;
                    }
                    Lasting::Temporary
                }
                Outcome::Temporary => Lasting::Temporary,
                Outcome::Permanent => Lasting::Permanent,
            };
            return Err(self.refused(deposit, relay, (answer.summary(), lasting)));
        }
    }

    /// What the relay said, if it is not to be asked again yet.
    fn rests(&self, relay: &ServerName, destination: &ServerName) -> Option<Refusal> {
        let now = Instant::now();
        let refusals = self.lock();
        let mut resting = refusals.values().filter(|(refusal, until)| {
            until.is_some_and(|until| now < until) && resting::concerns(refusal, relay, destination)
        });
        resting.next().map(|(refusal, _)| refusal.clone())
    }

    async fn ask(
        &self,
        deposit: &Deposit,
        relay: &Peer,
        patience: Duration,
    ) -> Result<answer::Answer, AskError> {
        let _permit = self.under_way.acquire().await;
        let patience = Patience { connect: patience, answer: patience };
        loop {
            let (request, coding) = self.request(deposit, relay);
            let exchange = &*self.site.exchange;
            let answer = answer::ask(exchange, relay, request, patience, ANSWER_BYTES_MAX).await?;
            // Once at most: what is sent again is not coded.
            if !self.codings.hear(&relay.name, coding, (answer.status, &answer.headers)) {
                return Ok(answer);
            }
        }
    }

    fn request(&self, deposit: &Deposit, relay: &Peer) -> (Request<Body>, ContentCoding) {
        let (body, target) = (Some(deposit.body.clone()), &deposit.target);
        let identity = &self.site.identity;
        let mut request = signed_request(identity, Method::PUT, target, &relay.name, body);
        request.headers_mut().insert(REQUEST_ID_HEADER, header_of(&deposit.id));
        let coding = self.codings.fill(&mut request, &relay.name, deposit.body.clone());
        (request, coding)
    }

    async fn took(&self, deposit: &Deposit, relay: &Peer) {
        let Deposit { destination, txn_id, seq, id, .. } = deposit;
        self.lock().retain(|_, (refusal, _)| !resting::concerns(refusal, &relay.name, destination));
        tracing::info!(%destination, txn_id, seq, delivery.id = %id, relay = %relay.name, "left with a relay");
        let now = self.site.clock.now();
        let entered = self.ledger.held_by(destination.clone(), *seq, relay.name.clone(), now);
        if let Err(error) = entered.await {
            // The relay has it all the same; it is only asked once more if the homeserver repeats it.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, txn_id, relay = %relay.name, "not entered in the ledger");
        }
    }

    fn refused(&self, deposit: &Deposit, relay: &Peer, refused: (String, Lasting)) -> Refusal {
        let time = resting::rest_of_strangers(relay.named_by, refused.1);
        self.rests_after(deposit, relay, refused, time.map(|time| Rest { full: None, time }))
    }

    fn rests_after(
        &self,
        deposit: &Deposit,
        relay: &Peer,
        (reason, lasting): (String, Lasting),
        rest: Option<Rest>,
    ) -> Refusal {
        let Deposit { destination, txn_id, id, .. } = deposit;
        let full = rest.and_then(|rest| rest.full);
        tracing::warn!(%destination, txn_id, delivery.id = %id, relay = %relay.name, reason, ?lasting, full = full.map(Fullness::as_str), "the relay did not take it");
        let at = self.site.clock.now();
        let refusal = Refusal {
            relay: relay.name.clone(),
            destination: destination.clone(),
            reason,
            full,
            rests_until: rest.map(|rest| at.after(rest.time)),
            lasting,
            at,
        };
        let key = (relay.name.clone(), destination.clone());
        let mut refusals = self.lock();
        if refusals.len() < REFUSALS_MAX || refusals.contains_key(&key) {
            let rests_until = rest.map(|rest| Instant::now() + rest.time);
            refusals.insert(key, (refusal.clone(), rests_until));
        }
        refusal
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().expect("nothing panics while it holds the refusals")
    }
}
