//! The owner of a mailbox: asks for its mail, and acknowledges it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use restante_federation_proto::{Clock as _, ServerName, SystemClock};
use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::limits::{COLLECT_BYTES_MAX, COLLECT_WAIT_MAX};
use restante_relay_api::{CollectAcknowledgement, CollectRequest, CollectResponse};

use crate::origin::Origin;
use crate::wire::Wire;

/// Envelopes of one answer, as nodes ask for them without being told otherwise.
pub(crate) const BATCH: u64 = 50;

/// After this id there is nothing.
const AFTER_ALL: u64 = (1 << 53) - 1;

/// A server with mail at one relay.
pub(crate) struct Owner {
    pub(crate) origin: Origin,
    relay: ServerName,
}

/// What one answer holds.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// What it came after.
    pub(crate) after: u64,
    /// Bytes of the answer.
    pub(crate) bytes: usize,
    pub(crate) mail: Vec<CollectAcknowledgement>,
}

impl Owner {
    pub(crate) fn at(relay: &ServerName) -> Self {
        Self { origin: Origin::on_this_machine(), relay: relay.clone() }
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.origin.name
    }

    /// The request for a batch after `after`.
    pub(crate) fn batch(&self, after: u64) -> Bytes {
        self.request(question(after))
    }

    /// The same, waiting for mail as long as a relay lets anybody.
    pub(crate) fn long_poll(&self, after: u64) -> Bytes {
        let wait_ms = COLLECT_WAIT_MAX.as_millis() as u64;
        self.request(CollectRequest { wait_ms, ..question(after) })
    }

    /// The same, waiting for no longer than `wait_ms`, with an acknowledgement of what came before.
    pub(crate) fn next(
        &self,
        after: u64,
        acknowledge: Vec<CollectAcknowledgement>,
        wait_ms: u64,
    ) -> Bytes {
        self.request(CollectRequest { acknowledge, wait_ms, ..question(after) })
    }

    /// The request that acknowledges, and asks for nothing.
    pub(crate) fn acknowledgement(&self, acknowledge: Vec<CollectAcknowledgement>) -> Bytes {
        let nothing = CollectRequest { limit: 1, max_bytes: 1, ..question(AFTER_ALL) };
        self.request(CollectRequest { acknowledge, ..nothing })
    }

    /// Looks through the whole mailbox, batch by batch.
    pub(crate) async fn batches(&self, address: SocketAddr) -> anyhow::Result<Vec<Batch>> {
        let mut wire = Wire::open(address).await?;
        let (mut batches, mut after) = (Vec::new(), 0);
        loop {
            let batch = read(after, wire.ask(&self.batch(after)).await?)?;
            let Some(last) = batch.mail.last() else { return Ok(batches) };
            after = last.id;
            batches.push(batch);
        }
    }

    /// The same question with a path that says how many bytes the answer is to have.
    pub(crate) fn question_of_bytes(&self, after: u64, bytes: usize) -> Bytes {
        let target = format!("/{bytes}").parse().expect("a number can be signed");
        let body = question(after).to_canonical_json();
        self.origin.signed_bytes(&Method::POST, &target, &self.relay, &body)
    }

    fn request(&self, question: CollectRequest) -> Bytes {
        let target = COLLECT.parse().expect("the endpoint's path can be signed");
        let body = question.to_canonical_json();
        self.origin.signed_bytes(&Method::POST, &target, &self.relay, &body)
    }
}

/// What an answer to a question after `after` holds.
pub(crate) fn read(after: u64, answer: &[u8]) -> anyhow::Result<Batch> {
    let response = CollectResponse::parse(answer)?;
    let mail = response.envelopes.into_iter();
    let mail = mail
        .map(|envelope| CollectAcknowledgement { id: envelope.id, sha256: Some(envelope.sha256) });
    Ok(Batch { after, bytes: answer.len(), mail: mail.collect() })
}

fn question(after: u64) -> CollectRequest {
    CollectRequest {
        after,
        acknowledge: Vec::new(),
        have: Vec::new(),
        limit: BATCH,
        max_bytes: COLLECT_BYTES_MAX as u64,
        wait_ms: 0,
        heard_until: None,
        signed_at: SystemClock.now(),
    }
}
