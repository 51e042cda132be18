//! Leaves a transaction with relays: of one kind after the other, with what goes along, until one takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_relay_api::RequestId;
use restante_relay_api::endpoints::send_relay_target;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use super::capsules::{Follows, Packed};
use super::deposits::{Deposit, Refusal};
use super::ledger::{CopyState, LedgerState, Line};
use super::mail::{Beside, Errand, Mail};
use super::preference::Places;
use crate::store::{outbox, trust};

impl Inner {
    /// Goes from one kind of relays to the next until one takes it, while there is time.
    pub(super) async fn leave_somewhere(
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
        // Anew: just after a start our relays say meanwhile that they deliver onward.
        let outgoing = self.site.relays.outgoing();
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

    /// Leaves it with those of `places` that do not hold it; an error says why nobody whose word counts has it then. Where no
    /// copy is kept of what a relay holds, that is not enough: the homeserver lets go of its own.
    pub(super) async fn leave(
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
pub(super) async fn first_taken(
    results: Vec<mpsc::Receiver<Result<ServerName, Refusal>>>,
) -> Result<ServerName, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let results = results.into_iter().map(|results| {
        let next = |mut results: mpsc::Receiver<_>| async move {
            results.recv().await.map(|result| (result, results))
        };
        Box::pin(stream::unfold(results, next))
    });
    let mut results = stream::select_all(results);
    while let Some(result) = results.next().await {
        match result {
            Ok(relay) => return Ok(relay),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(refusals)
}

pub(super) fn not_left(unreachable: &str, refusals: &[Refusal]) -> String {
    let each: Vec<String> =
        refusals.iter().map(|refusal| format!("{}: {}", refusal.relay, refusal.reason)).collect();
    format!("{unreachable}, and no relay took the transaction ({})", each.join("; "))
}
