//! Leaves one transaction with several relays at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::Method;
use restante_federation::{Patience, Peer, signed_request};
use restante_federation_proto::{RequestTarget, ServerName, Timestamp};
use restante_operators::Adjustable;
use tokio::sync::{Semaphore, mpsc};

use super::outcome::Outcome;
use super::schedule::Schedule;
use crate::answer::{self, AskError};
use crate::background::Background;
use crate::site::Site;
use crate::store::ledger::Ledger;

/// Deposits under way in the whole node; each holds its transaction's body in memory, 16 MiB at most.
const UNDER_WAY_MAX: usize = 32;

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Relays whose last refusal is remembered; a node knows a few.
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
    /// What it said, or what came between.
    pub(crate) reason: String,
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
    under_way: Arc<Semaphore>,
    refusals: Arc<Mutex<BTreeMap<ServerName, Refusal>>>,
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

    /// The last refusal of each relay that has taken nothing since.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.lock().values().cloned().collect()
    }

    async fn leave(&self, deposit: &Deposit, relay: &Peer) -> Result<ServerName, Refusal> {
        let deadline = self.schedule.current().relay_deadline();
        let asked = tokio::time::timeout(deadline, self.ask(deposit, relay)).await;
        let refused = match asked.unwrap_or(Err(AskError::Slow)) {
            Ok(answer) => match answer.outcome() {
                Outcome::Delivered => {
                    self.took(deposit, relay).await;
                    return Ok(relay.name.clone());
                }
                Outcome::Busy { .. } | Outcome::Temporary => (answer.summary(), Lasting::Temporary),
                Outcome::Permanent => (answer.summary(), Lasting::Permanent),
            },
            Err(AskError::Slow) => {
                (format!("no answer within {} s", deadline.as_secs()), Lasting::Temporary)
            }
            Err(error) => (error.text(), Lasting::Temporary),
        };
        Err(self.refused(deposit, relay, refused))
    }

    async fn ask(&self, deposit: &Deposit, relay: &Peer) -> Result<answer::Answer, AskError> {
        let _permit = self.under_way.acquire().await;
        let deadline = self.schedule.current().relay_deadline();
        let patience = Patience { connect: deadline, answer: deadline };
        let body = Some(deposit.body.clone());
        let request =
            signed_request(&self.site.identity, Method::PUT, &deposit.target, &relay.name, body);
        answer::ask(&*self.site.exchange, relay, request, patience, ANSWER_BYTES_MAX).await
    }

    async fn took(&self, deposit: &Deposit, relay: &Peer) {
        self.lock().remove(&relay.name);
        let Deposit { destination, txn_id, seq, .. } = deposit;
        tracing::info!(%destination, txn_id, seq, relay = %relay.name, "left with a relay");
        let now = self.site.clock.now();
        let entered = self.ledger.held_by(destination.clone(), *seq, relay.name.clone(), now);
        if let Err(error) = entered.await {
            // The relay has it all the same; it is only asked once more if the homeserver repeats it.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, txn_id, relay = %relay.name, "not entered in the ledger");
        }
    }

    fn refused(
        &self,
        deposit: &Deposit,
        relay: &Peer,
        (reason, lasting): (String, Lasting),
    ) -> Refusal {
        let Deposit { destination, txn_id, .. } = deposit;
        tracing::warn!(%destination, txn_id, relay = %relay.name, reason, ?lasting, "the relay did not take it");
        let refusal =
            Refusal { relay: relay.name.clone(), reason, lasting, at: self.site.clock.now() };
        let mut refusals = self.lock();
        if refusals.len() < REFUSALS_MAX || refusals.contains_key(&relay.name) {
            refusals.insert(relay.name.clone(), refusal.clone());
        }
        refusal
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServerName, Refusal>> {
        self.refusals.lock().expect("nothing panics while it holds the refusals")
    }
}
