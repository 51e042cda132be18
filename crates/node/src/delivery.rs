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
mod lanes;
pub(crate) mod ledger;
mod mail;
pub(crate) mod preference;
mod refusals;
mod resting;
mod route;
pub(crate) mod schedule;
mod taken;
mod turns;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures_util::StreamExt as _;
use http::StatusCode;
use restante_federation::{Answer, Outcome, Patience, Peer, ask, is_sign_of_life};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use restante_operators::Adjustable;
use restante_relay_api::endpoints::send_relay_target;
use restante_relay_api::{RequestId, hex};
use restante_sqlite::StoreError;
use tokio::time::Instant;

use afterwards::Afterwards;
pub(crate) use again::{Releft, Resent};
pub(crate) use deposits::{Lasting, Refusal};
use mail::{Beside, Errand};
pub(crate) use mail::{Mail, Outgoing};
use resting::Place;
pub(crate) use resting::meaning;

use crate::answer;
use crate::background::Background;
use crate::config::Preference;
use crate::metrics::DeliveryOutcome;
use crate::outbound::{json_response, refuse};
use crate::outbox::OutboxSettings;
use crate::relay_records::hearsay::Meeting;
use crate::relay_records::{Need, RelayRecords};
use crate::site::Site;
use crate::store::ledger::Ledger;
use crate::store::{outbox, trust};
use answers::{errors, sent};
use capsules::{CONTENTS_WAIT, Capsules, Follows, Packed};
use deposits::{Deposit, Deposits};
use ledger::{CopyState, LedgerState, Line, Place as StreamPlace};
use preference::{Places, Preferences};
use route::{Assumed, Progress, Step};
use schedule::Schedule;
use taken::{Prepared, Taken};
use turns::Turns;

/// Bytes of a destination's answer to `/send`: an entry for each of 50 PDUs, with an error text.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Relays of a server's own record that its mail is left with, those first that it wants tried first: a record may name many
/// more, and each of them may be somebody who never asked for it.
const RELAYS_OF_RECORD_MAX: usize = 3;

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

    /// Goes from one kind of relays to the next until one takes it, while there is time.
    async fn leave_somewhere(
        &self,
        mail: &Mail,
        (line, id): (&Line, &RequestId),
        begun: Instant,
        mut reason: String,
    ) -> Result<(), String> {
        let destination = mail.destination();
        let outgoing = self.site.relays.outgoing();
        let preference = self.preference_for(destination);
        let time_left = || self.schedule.current().direct_time_left(begun.elapsed());
        let known = self.known_relays_of(destination).await;
        let first = Places::first(preference, &known, &outgoing);
        // What is kept back from direct attempts is for one round of deposits.
        let mut is_round_spent = !first.are_none();
        if !first.are_none() {
            let left = self.leave(mail, (line, id), first, reason).await;
            let Err(why) = left else { return Ok(()) };
            reason = why;
            if time_left().is_zero() {
                return Err(reason);
            }
        }
        let mut tried = self.relays_of(destination, begun).await;
        let second = Places::second(preference, tried.clone(), &outgoing);
        let is_resort_left = !Places::last(preference, &tried, &outgoing).are_none();
        if !second.are_none() || !is_resort_left {
            is_round_spent |= !second.are_none();
            let left = self.leave(mail, (line, id), second, reason).await;
            let Err(why) = left else { return Ok(()) };
            reason = why;
        }
        let others = self.others_than(&tried, destination, begun).await;
        if !others.is_empty() {
            tried.extend(others.iter().cloned());
            let places = Places { to_keep: others, to_deliver: Vec::new() };
            let left = self.leave(mail, (line, id), places, reason).await;
            let Err(why) = left else { return Ok(()) };
            reason = why;
        }
        let last = Places::last(preference, &tried, &outgoing);
        if last.are_none() || (is_round_spent && time_left().is_zero()) {
            return Err(reason);
        }
        self.leave(mail, (line, id), last, reason).await
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
        let outcome = answer.outcome();
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

    /// The operator's word that a destination has no relay keeps its mail at home, unless there is another word for just that.
    fn preference_for(&self, destination: &ServerName) -> Preference {
        let preferences = self.preferences.current();
        match self.site.relays.has_none(destination) {
            true => preferences.of_one_without_relays(destination),
            false => preferences.of(destination),
        }
    }

    /// Looks for relays if none is known that takes mail for `destination`, without waiting.
    async fn look_for_relays_of(&self, destination: &ServerName) {
        if self.site.relays.is_named(destination) {
            return;
        }
        let known = self.known_relays_of(destination).await;
        if self.need_of(&known, destination) == Need::Another {
            self.records.look_for(destination, Need::Another);
        }
    }

    /// What is to be looked for where `known` are the relays of a record.
    fn need_of(&self, known: &[Peer], destination: &ServerName) -> Need {
        let refusals = self.deposits.refusals();
        let refuses = |relay: &Peer| {
            refusals
                .iter()
                .any(|refusal| refusal.relay == relay.name && refusal.destination == *destination)
        };
        if known.iter().all(refuses) { Need::Another } else { Need::Newer }
    }

    /// The relays of a record that came since `tried` took nothing: the destination may have moved. None if there is no
    /// time to try them; they are known for the next delivery then.
    async fn others_than(
        &self,
        tried: &[Peer],
        destination: &ServerName,
        begun: Instant,
    ) -> Vec<Peer> {
        if tried.is_empty() || self.site.relays.is_named(destination) {
            return Vec::new();
        }
        let time_left = || self.schedule.current().direct_time_left(begun.elapsed());
        self.records.find(destination, time_left()).await;
        let mut relays = self.known_relays_of(destination).await;
        relays.retain(|relay| !tried.contains(relay) && !time_left().is_zero());
        relays
    }

    /// The relays of a destination, looked for if none is known and there is time. Those of a record are looked for again
    /// once in a while, and sooner if all refuse.
    async fn relays_of(&self, destination: &ServerName, begun: Instant) -> Vec<Peer> {
        let known = self.known_relays_of(destination).await;
        if self.site.relays.is_named(destination) {
            return known;
        }
        if !known.is_empty() {
            self.records.look_for(destination, self.need_of(&known, destination));
            return known;
        }
        let wait = self.schedule.current().direct_time_left(begun.elapsed());
        self.records.find(destination, wait).await;
        self.known_relays_of(destination).await
    }

    async fn known_relays_of(&self, destination: &ServerName) -> Vec<Peer> {
        let holding = self.site.relays.holding(destination).await;
        let mut relays = holding.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, "its relay record can't be read");
            Vec::new()
        });
        if !self.site.relays.is_named(destination) {
            let mut places = HashSet::new();
            // Whoever stands at one URL under many names is called once.
            relays.retain(|relay| places.insert(Place::of(relay)));
            relays.truncate(RELAYS_OF_RECORD_MAX);
        }
        relays
    }

    /// Leaves it with those of `places` that do not hold it; an error says why nobody whose word counts has it then. Where no
    /// copy is kept of what a relay holds, that is not enough: the homeserver lets go of its own.
    async fn leave(
        &self,
        mail: &Mail,
        (line, id): (&Line, &RequestId),
        places: Places,
        unreachable: String,
    ) -> Result<(), String> {
        let destination = mail.destination();
        let distrusted = self.distrusted(destination).await;
        let holders = match line.state() {
            LedgerState::Delivered => return Ok(()),
            LedgerState::Relayed(holders) => holders,
            LedgerState::Pending => BTreeSet::new(),
        };
        let is_kept = line.copy == CopyState::Kept || !mail.is_lasting();
        let is_holder = |relay: &Peer| {
            is_kept && holders.contains(&relay.name) && !distrusted.contains(&relay.name)
        };
        let is_held = places.to_keep.iter().chain(&places.to_deliver).any(is_holder);
        let mut missing = places;
        missing.to_keep.retain(|relay| !is_holder(relay));
        missing.to_deliver.retain(|relay| !is_holder(relay));
        if !is_held && missing.are_none() {
            return Err(format!(
                "{unreachable}, and no relay is known for {destination}: neither its web site nor our relays tell of one; add one with `restante relays add {destination} RELAY`"
            ));
        }
        let packed = match missing.are_none() {
            true => Packed::default(),
            false => self.packed(mail, line).await,
        };
        if packed.follows == Follows::Unknown && !missing.to_deliver.is_empty() {
            // A homeserver without a node asks us for what is missing; while we can't be asked, it drops what follows it.
            missing.to_deliver.clear();
            if !is_held && missing.are_none() {
                return Err(format!(
                    "{unreachable}, and it follows events that {destination} may not have, so that relays can't deliver it"
                ));
            }
        }
        let capsule = packed.capsule.as_ref();
        let keys = self.site.own_keys.document().await;
        let stream = self.ledger.stream();
        let waybill = mail.waybill(stream, &line.place, capsule, &self.site.identity);
        let record = self.site.own_record.published();
        let beside = Beside { keys: &keys, capsule, record: record.as_ref(), id };
        let deposit = |errand| {
            let body = mail.deposit_body(Some(&waybill), &beside, errand).map_err(|error| {
                format!("{unreachable}, and no relay can take the transaction: {error}")
            })?;
            Ok::<_, String>(Arc::new(Deposit {
                destination: destination.clone(),
                txn_id: mail.txn_id().to_owned(),
                account: Some(mail.account(line.place.seq, distrusted.clone(), capsule)),
                id: id.clone(),
                target: send_relay_target(mail.txn_id(), destination),
                body,
            }))
        };
        let mut results = Vec::new();
        for (relays, errand) in
            [(missing.to_keep, Errand::Keep), (missing.to_deliver, Errand::Deliver)]
        {
            if !relays.is_empty() {
                results.push(self.deposits.start(deposit(errand)?, relays));
            }
        }
        // A relay that took it while an earlier call had given up on it: nothing new is needed.
        if !is_held {
            first_taken(results).await.map_err(|refusals| not_left(&unreachable, &refusals))?;
        }
        self.site.passed.note(destination, packed.event_ids).await;
        Ok(())
    }

    /// What goes along: what went along before, if it was left before. What was noted as being there since may be at a relay alone
    /// that has lost it.
    async fn packed(&self, mail: &Mail, line: &Line) -> Packed {
        if line.copy == CopyState::Kept {
            let (destination, seq) = (mail.destination().clone(), line.place.seq);
            match outbox::load(&self.site.database, destination, seq).await {
                Ok(left) => {
                    if let Some(capsule) = left.and_then(|left| left.copy.capsule()) {
                        return Packed { capsule: Some(capsule), ..Packed::default() };
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, destination = %mail.destination(), "the capsule of a copy can't be read");
                }
            }
        }
        self.capsules.pack(mail).await
    }

    /// Relays whose word does not count for mail of `destination`.
    async fn distrusted(&self, destination: &ServerName) -> BTreeSet<ServerName> {
        let distrusted =
            trust::distrusted(&self.site.database, destination.clone(), self.site.clock.now())
                .await;
        distrusted.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, "which of its relays lost mail can't be read; all count");
            BTreeSet::new()
        })
    }
}

/// The first relay that took it; else why none did.
async fn first_taken(
    results: Vec<tokio::sync::mpsc::Receiver<Result<ServerName, Refusal>>>,
) -> Result<ServerName, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let results = results.into_iter().map(|results| {
        let next = |mut results: tokio::sync::mpsc::Receiver<_>| async move {
            results.recv().await.map(|result| (result, results))
        };
        Box::pin(futures_util::stream::unfold(results, next))
    });
    let mut results = futures_util::stream::select_all(results);
    while let Some(result) = results.next().await {
        match result {
            Ok(relay) => return Ok(relay),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(refusals)
}

fn not_left(unreachable: &str, refusals: &[Refusal]) -> String {
    let each: Vec<String> =
        refusals.iter().map(|refusal| format!("{}: {}", refusal.relay, refusal.reason)).collect();
    format!("{unreachable}, and no relay took the transaction ({})", each.join("; "))
}

#[cfg(test)]
mod tests;
