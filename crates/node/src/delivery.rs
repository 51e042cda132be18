//! Takes a transaction from the homeserver to its destination, or to the destination's relays.
//!
//! The shell: pure rules decide. `schedule` says how long each part may take, `outcome` (federation) what an answer means,
//! `route` what the next step is, `ledger` which number a transaction has. The homeserver hears "sent" only when the
//! destination or a relay has said so durably; otherwise it keeps the transaction itself and comes again.

mod afterwards;
mod again;
mod ancestors;
mod answers;
mod capsules;
mod codings;
mod contents;
mod deposits;
mod finding;
mod lanes;
mod leaving;
pub(crate) mod ledger;
mod mail;
pub(crate) mod preference;
mod refusals;
mod resting;
mod route;
pub(crate) mod schedule;
mod taken;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use restante_federation::{Answer, Outcome, Patience, Peer, ask, is_sign_of_life};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use restante_operators::Adjustable;
use restante_relay_api::{RequestId, hex};
use restante_sqlite::StoreError;
use tokio::time::Instant;

use afterwards::Afterwards;
pub(crate) use again::{Releft, Resent};
pub(crate) use deposits::{Lasting, Refusal};
pub(crate) use mail::{Mail, Outgoing};
pub(crate) use resting::meaning;

use crate::answer;
use crate::background::Background;
use crate::metrics::DeliveryOutcome;
use crate::outbound::{json_response, refuse};
use crate::outbox::OutboxSettings;
use crate::relay_records::RelayRecords;
use crate::relay_records::hearsay::Meeting;
use crate::site::Site;
use crate::store::ledger::Ledger;
use answers::{errors, sent};
use capsules::{CONTENTS_WAIT, Capsules};
use deposits::Deposits;
use ledger::{LedgerState, Line, Place as StreamPlace};
use preference::Preferences;
use route::{Assumed, Progress, Step};
use schedule::Schedule;
use taken::{Prepared, Taken};
use turns::Turns;

/// Bytes of a destination's answer to `/send`: an entry for each of 50 PDUs, with an error text.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// What the homeserver hears when a transaction is safe but the destination has said nothing about its PDUs.
const SENT: &[u8] = br#"{"pdus":{}}"#;

/// Carries transactions. Clones share it.
#[derive(Clone)]
pub(crate) struct Delivery {
    shared: Arc<Inner>,
}

struct Inner {
    site: Site,
    ledger: Ledger,
    schedule: Adjustable<Schedule>,
    preferences: Adjustable<Preferences>,
    records: RelayRecords,
    deposits: Deposits,
    capsules: Capsules,
    afterwards: Afterwards,
    turns: Turns,
}

/// What became of the direct attempts.
enum Direct {
    /// The destination answered for good: this is what the homeserver hears.
    Answered(Answer),
    /// The destination took it.
    Delivered(Answer),
    /// It can't be reached now, for this reason.
    Unreachable(String),
}

/// What became of one attempt.
enum Attempt {
    /// Nothing more is to be tried.
    Ended(Direct),
    /// The destination is alive and asks to wait.
    Busy(Answer, Duration),
    /// It did not work.
    Failed(String),
}

/// What a delivery works with.
pub(crate) struct DeliveryParts {
    /// The node.
    pub(crate) site: Site,
    /// How long each part may take.
    pub(crate) schedule: Adjustable<Schedule>,
    /// With whose relays mail is left.
    pub(crate) preferences: Adjustable<Preferences>,
    /// What is kept of what was left.
    pub(crate) outbox: Adjustable<OutboxSettings>,
    /// Who finds relays that nobody named.
    pub(crate) records: RelayRecords,
    /// Owner of what outlives its call: deposits, and what is noted of mail.
    pub(crate) background: Background,
}

impl Delivery {
    /// Opens the ledger.
    pub(crate) async fn open(parts: DeliveryParts) -> Result<Self, StoreError> {
        let DeliveryParts { site, schedule, preferences, outbox, records, background } = parts;
        let drawn = [site.dice.number(), site.dice.number()];
        let drawn_stream = hex(drawn.map(u64::to_be_bytes).as_flattened());
        let ledger = Ledger::open(site.database.clone(), drawn_stream).await?;
        let afterwards = Afterwards::new(background.clone());
        let deposits =
            Deposits::new(site.clone(), ledger.clone(), background, schedule.clone(), outbox);
        let capsules = Capsules::new(site.clone());
        let turns = Turns::default();
        let shared = Arc::new(Inner {
            site,
            ledger,
            schedule,
            preferences,
            records,
            deposits,
            capsules,
            afterwards,
            turns,
        });
        Ok(Self { shared })
    }

    /// The last refusal of each relay that has taken nothing since.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.shared.deposits.refusals()
    }

    /// Sends a transaction; the answer is the homeserver's.
    pub(crate) async fn send(&self, mail: Mail) -> Response {
        let begun = Instant::now();
        let id = RequestId::of(self.shared.site.dice.number());
        match self.shared.carry(&mail, &id, begun).await {
            Ok(response) => response,
            Err(reason) => {
                self.shared.site.counted.delivery(DeliveryOutcome::Failed);
                tracing::warn!(destination = %mail.destination(), txn_id = mail.txn_id(), delivery.id = %id, reason, "not sent");
                let text =
                    format!("{reason}. The homeserver keeps the transaction and tries again.");
                refuse(&MatrixError::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, text))
            }
        }
    }
}

impl Inner {
    async fn carry(&self, mail: &Mail, id: &RequestId, begun: Instant) -> Result<Response, String> {
        let destination = mail.destination();
        let wait = self.schedule.current().direct_time_left(begun.elapsed());
        let turn = tokio::time::timeout(wait, self.turns.take(destination)).await;
        let _turn =
            turn.map_err(|_| format!("another transaction to {destination} is under way"))?;
        let is_noting = self.afterwards.is_noting(destination);
        let line = self.enter(mail).await?;
        let waybill = mail.waybill(self.ledger.stream(), &line.place, None, &self.site.identity);
        match self.try_directly(mail, (Some(&waybill), id), begun).await {
            Direct::Delivered(answer) => {
                let taken = self.taken(mail, &line.place, &answer);
                if line.holders.is_empty() {
                    self.afterwards.note(destination, taken.prepared(), Prepared::note).await;
                } else {
                    // Copies go, and relays are told, once the ledger says so.
                    taken.note().await;
                    self.site.bells.arrived.note(destination);
                }
                tracing::info!(%destination, txn_id = mail.txn_id(), seq = line.place.seq, delivery.id = %id, "sent directly");
                self.site.counted.delivery(DeliveryOutcome::Direct);
                Ok(sent(answer))
            }
            Direct::Answered(answer) => {
                tracing::warn!(%destination, txn_id = mail.txn_id(), delivery.id = %id, answer = answer.summary(), "refused");
                self.site.counted.delivery(DeliveryOutcome::Refused);
                Ok(answer::for_homeserver(answer))
            }
            Direct::Unreachable(reason) => {
                let line = if is_noting { self.as_noted(mail).await? } else { line };
                if line.state() == LedgerState::Delivered {
                    return Ok(json_response(StatusCode::OK, SENT));
                }
                self.leave_somewhere(mail, (&line, id), begun, reason).await?;
                self.site.counted.delivery(DeliveryOutcome::Relayed);
                tokio::time::sleep(self.schedule.current().answer_hold()).await;
                Ok(json_response(StatusCode::OK, SENT))
            }
        }
    }

    async fn try_directly(
        &self,
        mail: &Mail,
        added: (Option<&[u8]>, &RequestId),
        begun: Instant,
    ) -> Direct {
        let (destinations, schedule) = (&self.site.destinations, self.schedule.current());
        let mut progress = Progress::new(destinations.admit(mail.destination()));
        let mut last = Direct::Unreachable(format!("{} is assumed offline", mail.destination()));
        loop {
            let step = progress.next_step(&schedule, begun.elapsed());
            // A busy destination's own words are what is left when there is no time for another attempt.
            let Step::Attempt { pause, patience } = step else { return last };
            if !pause.is_zero() {
                // Even no time at all lasts until the timer's next millisecond.
                tokio::time::sleep(pause).await;
            }
            last = match self.attempt(mail, added, patience).await {
                Attempt::Ended(direct) => return direct,
                Attempt::Busy(answer, retry_after) => {
                    progress.busy(retry_after);
                    Direct::Answered(answer)
                }
                Attempt::Failed(reason) => {
                    tracing::debug!(destination = %mail.destination(), txn_id = mail.txn_id(), delivery.id = %added.1, reason, "attempt failed");
                    progress.failed(self.count_failure(mail.destination()).await);
                    // Whoever waits for the next attempt does not wait for this as well.
                    self.look_for_relays_of(mail.destination()).await;
                    Direct::Unreachable(reason)
                }
            };
        }
    }

    async fn attempt(
        &self,
        mail: &Mail,
        (waybill, id): (Option<&[u8]>, &RequestId),
        patience: Patience,
    ) -> Attempt {
        let destination = mail.destination();
        let peer = Peer::from(destination.clone());
        let request = mail.direct_request(waybill, id);
        let exchange = &*self.site.exchange;
        let answer = match ask(exchange, &peer, request, patience, ANSWER_BYTES_MAX).await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Failed(error.text()),
        };
        let outcome = match answer.outcome() {
            Outcome::Delivered if !answer.is_of_homeserver() => Outcome::Temporary,
            outcome => outcome,
        };
        if is_sign_of_life(outcome) {
            self.site.destinations.answered(destination).await;
            self.site.hearsay.met(destination, Meeting::Answered);
        }
        match outcome {
            Outcome::Delivered => Attempt::Ended(Direct::Delivered(answer)),
            Outcome::Permanent => Attempt::Ended(Direct::Answered(answer)),
            Outcome::Busy { retry_after } => Attempt::Busy(answer, retry_after),
            Outcome::Temporary => {
                Attempt::Failed(format!("{destination} answered {}", answer.summary()))
            }
        }
    }

    async fn count_failure(&self, destination: &ServerName) -> Assumed {
        match self.site.destinations.failed(destination).await.assumed_offline_since {
            Some(_) => Assumed::Offline,
            None => Assumed::Online,
        }
    }

    /// The line of `mail` once all is noted that its destination took before: maybe this, whose answer the homeserver missed,
    /// and what it needs no capsule for.
    async fn as_noted(&self, mail: &Mail) -> Result<Line, String> {
        let noted = self.afterwards.noted(mail.destination());
        // What is not known to be there goes along.
        let _ = tokio::time::timeout(CONTENTS_WAIT, noted).await;
        self.enter(mail).await
    }

    async fn enter(&self, mail: &Mail) -> Result<Line, String> {
        let line = self.ledger.enter(mail.transaction(), self.site.clock.now()).await;
        line.map_err(|error| format!("the node's ledger can't be written ({error})"))
    }

    /// What is to be noted of `mail`, which its destination took.
    fn taken(&self, mail: &Mail, place: &StreamPlace, answer: &Answer) -> Taken {
        Taken {
            ledger: self.ledger.clone(),
            capsules: self.capsules.clone(),
            passed: self.site.passed.clone(),
            mail: mail.clone(),
            seq: place.seq,
            errors: errors(answer),
            at: self.site.clock.now(),
        }
    }
}

#[cfg(test)]
mod tests;
