//! Makes one call, reads its answer, and takes both down.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use restante_federation::{
    Body, Exchange, FederationClient, Identity, Patience, Peer, collect_limited, signed_request,
};
use restante_federation_proto::{Clock, RequestTarget, ServerName, canonicalise, members};
use restante_relay_api::endpoints::{COLLECT, MEMBER_PREFIX, RELAY_TXN, mailbox_user_id};
use restante_relay_api::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Content, MailDigest, WireEnvelope, hex,
};
use serde_json::json;

use super::letter::Letter;
use super::target::Target;
use crate::history::{Answer, Collect, Collected, Digest, Had, Key, Op, RelayTxn, Seen};
use crate::recorder::Recorder;

/// Longer than a loaded machine needs for anything but a long poll.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(30), answer: Duration::from_secs(90) };

/// After a call without an answer. A process that is gone refuses at once, and its callers would do nothing but ask.
const AFTER_SILENCE: Duration = Duration::from_millis(5);

/// Bytes of an answer: the largest page and its envelope beside it fit.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Calls a relay and takes the calls down.
pub(super) struct Caller {
    pub(super) client: FederationClient,
    pub(super) clock: std::sync::Arc<dyn Clock>,
    pub(super) target: Target,
    pub(super) recorder: Recorder,
}

impl Caller {
    /// `courier` leaves `letter`.
    pub(super) async fn deposit(
        &self,
        relay: &Peer,
        courier: &Identity,
        letter: &Letter,
    ) -> Answer {
        let request = {
            let (target, body) = (&letter.target, letter.body.clone());
            signed_request(courier, Method::PUT, target, &relay.name, Some(body))
        };
        let op = Op::Deposit(letter.deposit.clone());
        self.call(relay, &courier.server_name, op, request, |_| Ok(Answer::Deposited)).await
    }

    /// `owner` collects.
    pub(super) async fn collect(
        &self,
        relay: &Peer,
        owner: &Identity,
        collect: Collect,
        wait: Duration,
    ) -> Answer {
        let target: RequestTarget = COLLECT.parse().expect("it is a target");
        let request = {
            let body = self.collect_request(&collect, wait).to_canonical_json();
            signed_request(owner, Method::POST, &target, &relay.name, Some(body.into()))
        };
        let op = Op::Collect(collect.clone());
        self.call(relay, &owner.server_name, op, request, read_collected).await
    }

    fn collect_request(&self, collect: &Collect, wait: Duration) -> CollectRequest {
        let acknowledge = collect.acknowledge.iter().map(|one| CollectAcknowledgement {
            id: one.id,
            sha256: one.sha256.map(|sha256| hex(&sha256.0)),
        });
        CollectRequest {
            after: collect.after,
            acknowledge: acknowledge.collect(),
            have: collect.have.iter().map(digest).collect(),
            limit: collect.limit,
            max_bytes: collect.max_bytes,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            heard_until: None,
            signed_at: self.clock.now(),
        }
    }

    /// `caller` collects one from `mailbox`, which need not be its own.
    pub(super) async fn relay_txn(
        &self,
        relay: &Peer,
        caller: &Identity,
        mailbox: &ServerName,
        entry_id: u64,
    ) -> Answer {
        let target = format!("{RELAY_TXN}{}", mailbox_user_id(mailbox));
        let target: RequestTarget = target.parse().expect("a user id may stand in a path");
        let body = Bytes::from(json!({ "entry_id": entry_id }).to_string());
        let request =
            { signed_request(caller, Method::GET, &target, &relay.name, Some(body.clone())) };
        let op = Op::RelayTxn(RelayTxn { mailbox: mailbox.clone(), entry_id });
        self.call(relay, &caller.server_name, op, request, read_relay_txn).await
    }

    /// Sends what must be refused.
    pub(super) async fn malformed(
        &self,
        relay: &Peer,
        caller: &ServerName,
        what: &'static str,
        request: Request<Body>,
    ) -> Answer {
        self.call(relay, caller, Op::Malformed(what), request, |_| Ok(Answer::Deposited)).await
    }

    async fn call(
        &self,
        relay: &Peer,
        caller: &ServerName,
        op: Op,
        request: Request<Body>,
        read: impl FnOnce(&Bytes) -> Result<Answer, String>,
    ) -> Answer {
        let start = self.recorder.begin();
        let answer = match self.exchange(relay, request).await {
            None => Answer::Lost,
            Some((StatusCode::OK, body)) => read(&body).unwrap_or_else(Answer::Unreadable),
            Some((status, _)) => Answer::Refused(status.as_u16()),
        };
        self.recorder.end(start, caller.clone(), op, answer.clone());
        if answer == Answer::Lost {
            tokio::time::sleep(AFTER_SILENCE).await;
        }
        answer
    }

    async fn exchange(&self, relay: &Peer, request: Request<Body>) -> Option<(StatusCode, Bytes)> {
        let answer = self.client.exchange(relay, request, PATIENCE).await.ok()?;
        let status = answer.status();
        let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await.ok()?;
        Some((status, body))
    }
}

fn read_collected(body: &Bytes) -> Result<Answer, String> {
    let response = CollectResponse::parse(body).map_err(|error| error.to_string())?;
    let envelopes: Result<_, _> = response.envelopes.iter().map(read_envelope).collect();
    let queued = Some((response.queued.count, response.queued.bytes));
    Ok(Answer::Collected(Collected { envelopes: envelopes?, queued }))
}

fn read_envelope(envelope: &WireEnvelope) -> Result<Seen, String> {
    let sha256 = Digest::from_hex(&envelope.sha256).ok_or("a sha256 is not 64 hex digits")?;
    let (origin, txn_id) = (envelope.origin.clone(), envelope.txn_id.clone());
    Ok(Seen {
        id: envelope.id,
        key: Some(Key { origin, txn_id, sha256 }),
        content: content_digest(&envelope.content),
        members: Digest::of(&envelope.extras),
        bytes: (envelope.content.len() + envelope.extras.len()) as u64,
    })
}

/// The hash of the canonical form; of something that is no transaction, the hash of what it is, which no deposit has.
fn content_digest(content: &Bytes) -> Digest {
    let canonical = Content::parse(content.clone()).map(|content| Digest(*content.sha256()));
    canonical.unwrap_or_else(|_| Digest::of(content))
}

/// Reads Dendrite's answer, in which everything is a member of one object.
fn read_relay_txn(body: &Bytes) -> Result<Answer, String> {
    let all = members(body).map_err(|error| error.to_string())?;
    let value = |name: &str| {
        let member = all.iter().find(|member| member.name == name);
        member.map(|member| member.value).ok_or(format!("{name} is missing"))
    };
    if value("entries_queued")? == b"false" {
        return Ok(Answer::Collected(Collected::default()));
    }
    let id = std::str::from_utf8(value("entry_id")?).ok().and_then(|text| text.parse().ok());
    let content = Bytes::copy_from_slice(value("transaction")?);
    let ours = all.iter().filter(|member| member.name.starts_with(MEMBER_PREFIX));
    let ours: Vec<_> = ours.map(|member| member.raw).collect();
    let extras =
        if ours.is_empty() { Vec::new() } else { [b"{", &*ours.join(&b","[..]), b"}"].concat() };
    let seen = Seen {
        id: id.ok_or("entry_id is no number")?,
        key: None,
        content: content_digest(&content),
        members: Digest::of(&extras),
        bytes: (content.len() + extras.len()) as u64,
    };
    Ok(Answer::Collected(Collected { envelopes: vec![seen], queued: None }))
}

fn digest(Had { mailbox, key }: &Had) -> MailDigest {
    MailDigest::of(mailbox, &key.origin, &key.txn_id, &key.sha256.0)
}

/// A body as it is signed.
pub(super) fn canonical(json: &serde_json::Value) -> Bytes {
    let json = json.to_string();
    canonicalise(json.as_bytes()).expect("serde_json writes JSON").into_owned().into()
}
