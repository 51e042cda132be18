//! Leaves one transaction with several relays at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use restante_federation::{
    Answer, AskError, Body, ContentCoding, Freshness, Outcome, Patience, Peer, ask, signed_request,
};
use restante_federation_proto::{RequestTarget, ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::{Fullness, REQUEST_ID_HEADER, Receipt, Receipted, RequestId};
use restante_sqlite::StoreError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::codings::{Codings, Next};
use super::lanes::{Lane, Lanes};
use super::mail::{Outgoing, header_of};
use super::refusals::Refusals;
use super::resting::{self, BUSY_WAIT_MIN, Cause, Place};
use super::schedule::Schedule;
use crate::answer;
use crate::background::Background;
use crate::outbox::copy::is_lasting;
use crate::outbox::{KeptCopy, OutboxSettings};
use crate::site::Site;
use crate::store::ledger::Ledger;
use crate::store::outbox::{Kept, Word};

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long the key of a receipt may be looked for; what comes later goes without.
const RECEIPT_KEY_WAIT: Duration = Duration::from_secs(10);

/// How often, and with which pauses, it is tried to note what a relay took while others write.
const ENTERED_TRIES: u32 = 20;
const ENTERED_PAUSE: Duration = Duration::from_millis(100);

/// Signatures of a receipt that are tried: a relay has one key, or two while it changes them.
const RECEIPT_KEYS_MAX: usize = 2;

/// What is left with a relay.
#[derive(Debug)]
pub(crate) struct Deposit {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// The homeserver's id for it.
    pub(crate) txn_id: String,
    /// Its line in the ledger; what the node sends of its own has none.
    pub(crate) account: Option<Account>,
    /// The id by which logs name the delivery.
    pub(crate) id: RequestId,
    /// Where at the relay.
    pub(crate) target: RequestTarget,
    /// The body, canonical.
    pub(crate) body: Bytes,
}

/// How a deposit is accounted for.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its number in the stream.
    pub(crate) seq: u64,
    /// What a copy is made of: the homeserver's request.
    pub(crate) outgoing: Outgoing,
    /// SHA-256 of its canonical content.
    pub(crate) content_sha256: [u8; 32],
    /// Relays whose word does not count for this destination.
    pub(crate) distrusted: BTreeSet<ServerName>,
    /// The capsule that goes along, canonical.
    pub(crate) capsule: Option<Bytes>,
    /// The copy, made when a relay has taken it.
    pub(crate) copy: OnceLock<Option<KeptCopy>>,
}

impl Account {
    /// The copy; `None` for what is not worth one.
    fn copy(&self) -> Option<KeptCopy> {
        let Outgoing { target, authorization, body, .. } = &self.outgoing;
        let make = || {
            let request = (target.as_str(), authorization.as_str());
            is_lasting(body).then(|| KeptCopy::of(request, body, self.capsule.as_ref())).flatten()
        };
        self.copy.get_or_init(make).clone()
    }
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
    outbox: Adjustable<OutboxSettings>,
}

impl Deposits {
    /// Each relay gets the time that `schedule` says.
    pub(crate) fn new(
        site: Site,
        ledger: Ledger,
        background: Background,
        schedule: Adjustable<Schedule>,
        outbox: Adjustable<OutboxSettings>,
    ) -> Self {
        Self {
            site,
            ledger,
            background,
            lanes: Arc::default(),
            refusals: Arc::default(),
            codings: Arc::default(),
            schedule,
            outbox,
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
                let left = deposits.leave(&deposit, &relay).await;
                let answer = left.as_ref().ok().cloned();
                let result = left.and_then(|_| deposits.believed(&deposit, &relay));
                // The caller may have its answer already.
                told.send(result).await.ok();
                if let Some(answer) = answer {
                    deposits.keep_receipt(&deposit, &relay, &answer).await;
                }
            });
        }
        results
    }

    /// The last refusal of each relay for each destination for which it has taken nothing since.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.lock().all()
    }

    /// The relay's answer, once it took the deposit and that is entered.
    async fn leave(&self, deposit: &Deposit, relay: &Peer) -> Result<Bytes, Refusal> {
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
            let full = answer::full(&answer);
            let (lasting, retry_after) = match answer.outcome() {
                Outcome::Delivered => {
                    return match self.took(deposit, (relay, &place)).await {
                        Ok(()) => Ok(answer.body),
                        Err(error) => Err(self.unkept(deposit, relay, &error)),
                    };
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
    ) -> Result<Answer, AskError> {
        let patience = Patience { connect: patience, answer: patience };
        loop {
            let (request, coding) = self.request(deposit, relay);
            let exchange = &*self.site.exchange;
            let answer = ask(exchange, relay, request, patience, ANSWER_BYTES_MAX).await;
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

    /// Enters that the relay took it, with the copy that is kept; durable on return.
    async fn took(
        &self,
        deposit: &Deposit,
        (relay, place): (&Peer, &Place),
    ) -> Result<(), StoreError> {
        let Deposit { destination, txn_id, account, id, .. } = deposit;
        self.lock().took(place, destination);
        let seq = account.as_ref().map(|account| account.seq);
        tracing::info!(%destination, txn_id, seq, delivery.id = %id, relay = %relay.name, "left with a relay");
        let Some(account) = account else { return Ok(()) };
        let now = self.site.clock.now();
        let bytes_max = self.outbox.current().bytes_max;
        // Whose word does not count is asked all the same what became of the mail: so it can show that it keeps it.
        let is_distrusted = account.distrusted.contains(&relay.name);
        let word = if is_distrusted { Word::DoesNotCount } else { Word::Counts };
        let kept = account.copy().map(|copy| Kept { copy, bytes_max, word });
        // The name is enough, although a record may borrow a name for another place: what is entered concerns mail for the
        // server alone that signed the record and so chose that place.
        let line = (destination.clone(), account.seq);
        for attempt in 1.. {
            match self.ledger.held_by(line.clone(), relay.name.clone(), kept.clone(), now).await {
                Ok(()) => break,
                Err(StoreError::Busy) if attempt < ENTERED_TRIES => sleep(ENTERED_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        self.site.bells.copies.notify_one();
        Ok(())
    }

    /// A relay has it, and nothing here could ask it what became of the mail, or send it again: the homeserver keeps it.
    fn unkept(&self, deposit: &Deposit, relay: &Peer, error: &StoreError) -> Refusal {
        let Deposit { destination, txn_id, .. } = deposit;
        let error = error as &dyn std::error::Error;
        tracing::error!(error, %destination, txn_id, relay = %relay.name, "what a relay took can't be noted here");
        Refusal {
            relay: relay.name.clone(),
            destination: destination.clone(),
            reason: format!("it took it, and that can't be noted here: {error}"),
            full: None,
            rests_until: None,
            lasting: Lasting::Temporary,
            at: self.site.clock.now(),
        }
    }

    /// Whether the relay's word counts.
    fn believed(&self, deposit: &Deposit, relay: &Peer) -> Result<ServerName, Refusal> {
        let account = deposit.account.as_ref();
        if !account.is_some_and(|account| account.distrusted.contains(&relay.name)) {
            return Ok(relay.name.clone());
        }
        Err(Refusal {
            relay: relay.name.clone(),
            destination: deposit.destination.clone(),
            reason: format!(
                "it says that it took it, but it lost mail again and again, so that its word does not count until mail \
                 arrives through it, a day passes, or you say so: restante relays trust {} {}",
                deposit.destination, relay.name
            ),
            full: None,
            rests_until: None,
            lasting: Lasting::Temporary,
            at: self.site.clock.now(),
        })
    }

    /// Keeps the relay's receipt, if it gave one that its key verifies; it is evidence and nothing depends on it.
    async fn keep_receipt(&self, deposit: &Deposit, relay: &Peer, answer: &[u8]) {
        let Some(account) = &deposit.account else { return };
        let Some(json) = Receipt::in_answer(answer) else { return };
        let of = Receipted {
            origin: self.site.server_name(),
            destination: &deposit.destination,
            txn_id: &deposit.txn_id,
            content_sha256: &account.content_sha256,
        };
        let verifying = async {
            for key_id in Receipt::key_ids(&json, &relay.name).into_iter().take(RECEIPT_KEYS_MAX) {
                let key = self.site.keys.key(&relay.name, &key_id, Freshness::Believed).await;
                let Ok(key) = key else { continue };
                if Receipt::verify(&json, &relay.name, &of, (&key_id, &key)).is_ok() {
                    return true;
                }
            }
            false
        };
        if !timeout(RECEIPT_KEY_WAIT, verifying).await.unwrap_or(false) {
            tracing::debug!(relay = %relay.name, txn_id = deposit.txn_id, "a receipt does not verify and is not kept");
            return;
        }
        let line = (deposit.destination.clone(), account.seq);
        if let Err(error) = self.ledger.receipted(line, relay.name.clone(), json).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, relay = %relay.name, txn_id = deposit.txn_id, "a receipt can't be kept");
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
