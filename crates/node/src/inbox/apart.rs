//! Takes transactions apart that can't be delivered in their origin's name.

use std::time::Duration;

use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

use super::Inbox;
use super::content_hash::is_whole;
use super::grown::edus_beyond;
use super::schedule::Turn;
use super::transaction::{Pdu, Transaction};
use crate::store::inbox::{Envelope, Settled};

/// How long the homeserver may lack a valid key of an origin before that origin's transactions are taken apart: longer
/// than the ten minutes for which a homeserver may remember that a server can't be reached.
const KEYLESS_WAIT: Duration = Duration::from_secs(15 * 60);

/// Why mail without a proof is taken apart.
pub(super) const PROOFLESS: &str =
    "it was left without its origin's proof, as a Dendrite node leaves it";

/// Why mail is taken apart whose id was used before.
pub(super) const GROWN: &str =
    "the homeserver took another body under the same transaction id, and takes each id once";

impl Inbox {
    /// The homeserver does not believe the origin's signature. It is offered what keys there are whenever it asks;
    /// after a while there is nothing left to wait for.
    pub(super) async fn keyless(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        reason: String,
    ) -> Result<Option<Turn>, StoreError> {
        let now = self.elapsed();
        let since = *self.state().keyless.entry(origin.clone()).or_insert(now);
        if now < since.after(KEYLESS_WAIT) {
            tracing::info!(%origin, txn_id = envelope.txn_id, reason, "delivery is tried again later");
            self.waits_for(envelope, reason).await?;
            return Ok(Some(Turn::Retry(None)));
        }
        let pdus = match self.pdus(&envelope.content).await? {
            Ok(pdus) => pdus,
            Err(_) => return Ok(Some(Turn::Retry(None))),
        };
        let why = format!("the homeserver has no valid key of its origin ({reason})");
        self.take_apart(origin, envelope, &pdus, (&why, &[])).await?;
        Ok(None)
    }

    /// Delivers an envelope's events on their own; the envelope is parked if that leaves anything out: EDUs, which only
    /// the origin's signature carries, and events that can't be delivered so. EDUs that the homeserver has taken with
    /// another body, by their `fingerprints`, are not left out.
    pub(super) async fn take_apart(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: &[Pdu],
        (why, fingerprints): (&str, &[u8]),
    ) -> Result<(), StoreError> {
        let has_proof = envelope.proof.is_some();
        let (whole, left_out): (Vec<Pdu>, Vec<Pdu>) =
            pdus.iter().cloned().partition(|pdu| stands_alone(pdu, has_proof));
        let rooms = whole.iter().map(|pdu| pdu.room_id.clone()).collect();
        self.set_aside(origin, envelope, &whole, &rooms).await?;
        let edus = edus_beyond(&envelope.content, fingerprints);
        let left_out = left_out.len() + Transaction::parse(&envelope.content).unreadable();
        if edus == 0 && left_out == 0 {
            return self.settle(origin, (envelope, pdus), Settled::Confirmed).await;
        }
        let reason = left_out_reason(why, edus, left_out);
        tracing::warn!(%origin, txn_id = envelope.txn_id, reason, "a transaction was taken apart");
        self.settle(origin, (envelope, pdus), Settled::Parked(reason)).await
    }
}

/// Whether an event can be delivered on its own: its id is known, and it is as its sender made it, by the proof of the
/// transaction or by its own hash.
fn stands_alone(pdu: &Pdu, has_proof: bool) -> bool {
    pdu.event_id.is_some() && (has_proof || is_whole(&pdu.json))
}

fn left_out_reason(why: &str, edus: usize, events: usize) -> String {
    if events == 0 {
        return format!(
            "{why}: {edus} of its EDUs can't be delivered; its events are, on their own"
        );
    }
    format!(
        "{why}: {edus} of its EDUs can't be delivered, nor {events} of its events, which were altered on their way, \
         can't be read or are of rooms that the homeserver does not know"
    )
}
