//! Tells our own outgoing relays that a destination has mail that they were to deliver, so that they do not send it again much later.
//!
//! Nothing depends on it: a relay that is not reached delivers once more what the destination already has, and takes its answer.

use std::collections::BTreeSet;

use restante_federation::Peer;
use restante_federation_proto::ServerName;
use restante_relay_api::{LeftRequest, LeftTransaction, hex};

use super::Inner;
use super::mail::Mail;
use crate::left_call::call_left;
use crate::site::Site;

/// Bytes of an answer, which says nothing.
const ANSWER_BYTES_MAX: usize = 4096;

impl Inner {
    /// Takes `mail` back, without waiting, from those of `holders` that are our own outgoing relays.
    pub(super) fn withdraw(&self, mail: &Mail, holders: &BTreeSet<ServerName>) {
        let outgoing = self.site.relays.outgoing();
        let transaction = mail.transaction();
        for relay in outgoing.into_iter().filter(|relay| holders.contains(&relay.name)) {
            let withdrawn = LeftTransaction {
                destination: transaction.destination.clone(),
                txn_id: transaction.txn_id.clone(),
                content_sha256: hex(&transaction.content_sha256),
            };
            let request = LeftRequest {
                ask: Vec::new(),
                withdraw: vec![withdrawn],
                signed_at: self.site.clock.now(),
            };
            let site = self.site.clone();
            self.deposits.background().spawn(async move { tell(&site, &relay, &request).await });
        }
    }
}

async fn tell(site: &Site, relay: &Peer, request: &LeftRequest) {
    if let Err(error) = call_left(site, relay, request, ANSWER_BYTES_MAX).await {
        tracing::debug!(relay = %relay.name, %error, "it was not told that mail need not be delivered any more");
    }
}
