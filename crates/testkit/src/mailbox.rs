//! A look into a mailbox with its owner's key; nothing changes but by [`MailboxView::acknowledge`].

use std::time::Duration;

use http::Method;
use restante_federation_proto::{Clock as _, ServerName, SigningKey, SystemClock};
use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::limits::ACKNOWLEDGEMENTS_MAX;
use restante_relay_api::{CollectAcknowledgement, CollectRequest, CollectResponse, WireEnvelope};
use serde_json::Value;

use crate::eventually;
use crate::http_probe::exchange;
use crate::relay::RelayProcess;
use crate::signing::signed_request;

/// Envelopes that one look asks for.
const PAGE_ENVELOPES: u64 = 500;

/// Bytes that one look asks for.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// One server's mailbox at one relay.
#[derive(Debug, Clone, Copy)]
pub struct MailboxView<'a> {
    relay: &'a RelayProcess,
    owner: &'a ServerName,
    key: &'a SigningKey,
}

impl<'a> MailboxView<'a> {
    pub(crate) fn new(relay: &'a RelayProcess, owner: &'a ServerName, key: &'a SigningKey) -> Self {
        Self { relay, owner, key }
    }

    /// The envelopes in it, in their order.
    ///
    /// # Panics
    ///
    /// When the relay refuses.
    pub async fn envelopes(&self) -> Vec<WireEnvelope> {
        let mut envelopes: Vec<WireEnvelope> = Vec::new();
        loop {
            let after = envelopes.last().map_or(0, |last| last.id);
            let page = self.collect(after, &[]).await.envelopes;
            if page.is_empty() {
                return envelopes;
            }
            envelopes.extend(page);
        }
    }

    /// The texts of the messages in it, in the order of their envelopes.
    pub async fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for envelope in self.envelopes().await {
            let transaction: Value =
                serde_json::from_slice(&envelope.content).expect("a transaction is JSON");
            let pdus = transaction["pdus"].as_array().cloned().unwrap_or_default();
            let bodies = pdus.iter().filter_map(|pdu| pdu["content"]["body"].as_str());
            texts.extend(bodies.map(str::to_owned));
        }
        texts
    }

    /// Waits until it holds exactly `count` texts.
    pub async fn wait_for_texts(&self, count: usize, deadline: Duration) {
        let what = format!("{} texts for {} are at the relay", count, self.owner);
        eventually(&what, deadline, async || (self.texts().await.len() == count).then_some(()))
            .await;
    }

    /// Waits until `is_wanted` of what it holds.
    pub async fn wait_for_envelopes(
        &self,
        what: &str,
        deadline: Duration,
        is_wanted: impl Fn(&[WireEnvelope]) -> bool,
    ) {
        eventually(what, deadline, async || is_wanted(&self.envelopes().await).then_some(())).await;
    }

    /// Waits until it is empty: its owner has acknowledged everything.
    pub async fn wait_until_empty(&self, deadline: Duration) {
        let what = format!("{} has acknowledged its mail", self.owner);
        eventually(&what, deadline, async || self.envelopes().await.is_empty().then_some(())).await;
    }

    /// Acknowledges these, as its owner does that has them.
    ///
    /// # Panics
    ///
    /// When the relay refuses.
    pub async fn acknowledge(&self, envelopes: &[WireEnvelope]) {
        for part in envelopes.chunks(ACKNOWLEDGEMENTS_MAX) {
            self.collect(0, part).await;
        }
    }

    /// Waits until it holds an envelope that `is_wanted`.
    pub async fn wait_for_envelope(
        &self,
        what: &str,
        deadline: Duration,
        is_wanted: impl Fn(&Value) -> bool,
    ) {
        eventually(what, deadline, async || {
            let envelopes = self.envelopes().await;
            let mut contents = envelopes.iter().map(|envelope| {
                serde_json::from_slice::<Value>(&envelope.content).expect("a transaction is JSON")
            });
            contents.any(|content| is_wanted(&content)).then_some(())
        })
        .await;
    }

    async fn collect(&self, after: u64, acknowledge: &[WireEnvelope]) -> CollectResponse {
        let acknowledge = acknowledge.iter().map(|envelope| CollectAcknowledgement {
            id: envelope.id,
            sha256: Some(envelope.sha256.clone()),
        });
        let request = CollectRequest {
            after,
            acknowledge: acknowledge.collect(),
            have: Vec::new(),
            limit: PAGE_ENVELOPES,
            max_bytes: PAGE_BYTES,
            wait_ms: 0,
            heard_until: None,
            signed_at: SystemClock.now(),
        };
        let target = COLLECT.parse().expect("the endpoint's path is a target");
        let signed = signed_request(
            Method::POST,
            &self.relay.direct_url(),
            &target,
            (self.owner, self.key),
            self.relay.server_name(),
            request.to_canonical_json().into(),
        );
        let (status, body) = exchange(signed).await.expect("the relay answers");
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "the relay refuses a look into the mailbox: {status} {text}");
        CollectResponse::parse(&body).expect("the relay answers as the contract says")
    }
}
