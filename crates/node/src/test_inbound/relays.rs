//! Relays in memory: honest, slow, forgetful, lying.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use restante_federation::{
    Body, BoxError, Exchange, ExchangeError, Patience, Peer, Stage, collect_limited, full,
};
use restante_federation_proto::{KeyDocument, ServerName, Timestamp};
use restante_relay_api::endpoints::{COLLECT, KEY_SERVER, MORE_AFTER_HEADER, RELAY_TXN};
use restante_relay_api::{
    CollectRequest, CollectResponse, MailDigest, Queued, RelayTxnResponse, Told, WireEnvelope,
    parse_hex,
};

use tokio::time::Instant;

use super::Letter;
use crate::test_site::{BEGINNING, OWN_NAME, name};

/// From one id to the next.
const ID_STEP: u64 = 10;

/// Bytes that travel as one.
const PACKET_BYTES: usize = 1400;

/// What a relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manner {
    #[default]
    Honest,
    /// Never answers.
    Hangs,
    /// Takes acknowledgements, and breaks the connection then.
    BreaksOffAnswers,
    /// Knows only `relay_txn`.
    Old,
    /// The same, and gives its first envelope for ever, under one number after the other.
    Repeats,
    /// Takes no connection.
    Refuses,
    /// Answers at once, however long it is asked to wait.
    Hasty,
    /// Gives one envelope at a time, and takes so long for each.
    Drips(Duration),
    /// Is at the other end of a slow line.
    Far { round_trip: Duration, bytes_per_second: u64 },
    /// The same, and announces that each part ends an envelope later than it does.
    FarAndFalse { round_trip: Duration, bytes_per_second: u64 },
    /// Takes acknowledgements, and breaks every second connection then.
    Unsteady,
    /// Does not know that there is mail from elsewhere.
    Deaf,
    /// Its clock is this much ahead.
    ClockAhead(Duration),
}

#[derive(Default)]
struct Mailbox {
    manner: Manner,
    entries: BTreeMap<u64, WireEnvelope>,
    next_id: u64,
    asked: usize,
    given: usize,
    given_bytes: u64,
    elsewhere: BTreeSet<MailDigest>,
    /// Until when its line carries what it was given, where it has one.
    line: Arc<Mutex<Option<Instant>>>,
    told: Told,
    heard_until: Option<Timestamp>,
}

/// Relays in memory, and servers that publish their keys; every other server can't be reached.
#[derive(Default)]
pub(crate) struct FakeRelays {
    mailboxes: Mutex<BTreeMap<ServerName, Mailbox>>,
    documents: Mutex<BTreeMap<ServerName, KeyDocument>>,
    defects: AtomicU32,
    changed: tokio::sync::Notify,
}

impl FakeRelays {
    fn with<T>(&self, relay: &str, work: impl FnOnce(&mut Mailbox) -> T) -> T {
        work(self.mailboxes.lock().unwrap().entry(name(relay)).or_default())
    }

    pub(crate) fn set(&self, relay: &str, manner: Manner) {
        self.with(relay, |mailbox| mailbox.manner = manner);
        self.changed.notify_waiters();
    }

    /// Its server can be reached, and answers with it.
    pub(crate) fn publish(&self, document: &KeyDocument) {
        let server = document.server_name().clone();
        self.documents.lock().unwrap().insert(server, document.clone());
    }

    /// The next so many calls meet a defect in this program.
    pub(crate) fn panic_next(&self, calls: u32) {
        self.defects.store(calls, Ordering::Relaxed);
    }

    /// It tells this until it is heard.
    pub(crate) fn tell(&self, relay: &str, told: Told) {
        self.with(relay, |mailbox| mailbox.told = told);
        self.changed.notify_waiters();
    }

    /// Up to when the node says that it has heard of losses.
    pub(crate) fn heard_until(&self, relay: &str) -> Option<Timestamp> {
        self.with(relay, |mailbox| mailbox.heard_until)
    }

    pub(crate) fn left(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.entries.len())
    }

    pub(crate) fn asked(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.asked)
    }

    /// Envelopes that it handed over, those that it gave again counted again.
    pub(crate) fn given(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.given)
    }

    /// Bytes of its answers.
    pub(crate) fn given_bytes(&self, relay: &str) -> u64 {
        self.with(relay, |mailbox| mailbox.given_bytes)
    }

    /// What it was told to be here already.
    pub(crate) fn told_of(&self, relay: &str) -> usize {
        self.with(relay, |mailbox| mailbox.elsewhere.len())
    }

    pub(crate) fn hold(&self, relay: &str, letter: &Letter) {
        self.with(relay, |mailbox| {
            if mailbox.elsewhere.contains(&elsewhere(&letter.envelope)) {
                return;
            }
            mailbox.next_id += ID_STEP;
            let mut envelope = letter.envelope.clone();
            envelope.id = mailbox.next_id;
            mailbox.entries.insert(envelope.id, envelope);
        });
        self.changed.notify_waiters();
    }

    fn collect(&self, relay: &ServerName, request: &CollectRequest) -> CollectResponse {
        self.with(relay.as_str(), |mailbox| {
            if request.heard_until.is_some() && request.heard_until == mailbox.told.until() {
                mailbox.told = Told::default();
            }
            mailbox.heard_until = request.heard_until.or(mailbox.heard_until);
            for acknowledged in &request.acknowledge {
                let entry = mailbox.entries.get(&acknowledged.id);
                if entry.is_some_and(|entry| Some(&entry.sha256) == acknowledged.sha256.as_ref()) {
                    mailbox.entries.remove(&acknowledged.id);
                }
            }
            if mailbox.manner != Manner::Deaf {
                mailbox.elsewhere.extend(request.have.iter().cloned());
                let heard = &mailbox.elsewhere;
                mailbox.entries.retain(|_, entry| !heard.contains(&elsewhere(entry)));
            }
            let after = mailbox.entries.range(request.after + 1..);
            let limit = match mailbox.manner {
                Manner::Drips(_) => 1,
                _ => request.limit as usize,
            };
            let mut bytes = 0;
            let fits = after.take(limit).map(|(_, entry)| entry).take_while(|entry| {
                let is_first = bytes == 0;
                bytes += (entry.content.len() + entry.extras.len()) as u64;
                is_first || bytes <= request.max_bytes
            });
            let envelopes: Vec<_> = fits.cloned().collect();
            mailbox.given += envelopes.len();
            CollectResponse {
                envelopes,
                queued: Queued { count: mailbox.entries.len() as u64, bytes: 0, oldest_at: None },
                told: mailbox.told.clone(),
            }
        })
    }

    async fn wait_and_collect(
        &self,
        relay: &ServerName,
        request: CollectRequest,
    ) -> CollectResponse {
        let wait = Duration::from_millis(request.wait_ms);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let response = self.collect(relay, &request);
            if !response.envelopes.is_empty()
                || tokio::time::timeout_at(deadline, changed).await.is_err()
            {
                return response;
            }
        }
    }

    fn relay_txn(&self, relay: &ServerName, body: &[u8]) -> Bytes {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        self.with(relay.as_str(), |mailbox| {
            let removed = mailbox.entries.remove(&body["entry_id"].as_u64().unwrap());
            if let Some(removed) = removed.filter(|_| mailbox.manner == Manner::Repeats) {
                mailbox.next_id += 1;
                mailbox.entries.insert(mailbox.next_id, removed);
            }
            let first = mailbox.entries.first_key_value();
            let response =
                first.map_or(RelayTxnResponse::Empty, |(id, entry)| RelayTxnResponse::Envelope {
                    entry_id: *id,
                    content: entry.content.clone(),
                    extras: entry.extras.clone(),
                });
            response.to_json()
        })
    }
}

fn elsewhere(envelope: &WireEnvelope) -> MailDigest {
    let WireEnvelope { origin, txn_id, sha256, .. } = envelope;
    MailDigest::of(&name(OWN_NAME), origin, txn_id, &parse_hex(sha256).unwrap())
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder().status(status).body(full(body)).unwrap()
}

/// The answer to a collect; it announces that it ends so far `beyond` its end.
fn collected(response: &CollectResponse, beyond: u64) -> Response<Body> {
    let body = response.to_json();
    let length = body.len();
    let mut answer = answer(200, body);
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    let more = response.queued.count > response.envelopes.len() as u64;
    if let Some(last) = response.envelopes.last().filter(|_| more) {
        answer.headers_mut().insert(MORE_AFTER_HEADER, (last.id + beyond).into());
    }
    answer
}

/// A body that comes over a line, packet by packet, beside whatever else comes over it.
fn over(line: Arc<Mutex<Option<Instant>>>, body: Bytes, bytes_per_second: u64) -> Body {
    let packets = stream::unfold((line, body), move |(line, mut rest)| async move {
        if rest.is_empty() {
            return None;
        }
        let packet = rest.split_to(rest.len().min(PACKET_BYTES));
        let takes = Duration::from_micros(packet.len() as u64 * 1_000_000 / bytes_per_second);
        let free_at = {
            let mut free_at = line.lock().unwrap();
            let begins_at = free_at.unwrap_or_else(Instant::now).max(Instant::now());
            *free_at.insert(begins_at + takes)
        };
        tokio::time::sleep_until(free_at).await;
        Some((Ok::<_, BoxError>(Frame::data(packet)), (line, rest)))
    });
    StreamBody::new(packets).boxed_unsync()
}

#[async_trait]
impl Exchange for FakeRelays {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = peer.name.clone();
        let defects = self.defects.load(Ordering::Relaxed);
        if defects > 0 {
            self.defects.store(defects - 1, Ordering::Relaxed);
            panic!("a defect");
        }
        let document = self.documents.lock().unwrap().get(&server).cloned();
        if let Some(document) = document.filter(|_| request.uri().path() == KEY_SERVER) {
            return Ok(answer(200, document.raw().clone()));
        }
        let is_known = self.mailboxes.lock().unwrap().contains_key(&server);
        if !is_known {
            return Err(ExchangeError::Connect { server, source: "connection refused".into() });
        }
        let manner = self.with(server.as_str(), |mailbox| {
            mailbox.asked += 1;
            mailbox.manner
        });
        let target = request.uri().to_string();
        let body = collect_limited(request.into_body(), usize::MAX).await.unwrap();
        match manner {
            Manner::Hangs => {
                tokio::time::sleep(patience.answer).await;
                Err(ExchangeError::Timeout { server, stage: Stage::Answer })
            }
            Manner::Old | Manner::Repeats if target.starts_with(RELAY_TXN) => {
                Ok(answer(200, self.relay_txn(&server, &body)))
            }
            Manner::Old | Manner::Repeats => Ok(answer(404, "{}")),
            _ if target != COLLECT => Ok(answer(404, "{}")),
            Manner::ClockAhead(ahead) => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let theirs = BEGINNING.after(ahead);
                if theirs.since(request.signed_at) > Duration::from_secs(60) {
                    let refusal =
                        format!(r#"{{"errcode":"M_FORBIDDEN","now":{}}}"#, theirs.as_millis());
                    return Ok(answer(403, refusal));
                }
                Ok(answer(200, self.wait_and_collect(&server, request).await.to_json()))
            }
            Manner::Refuses => {
                Err(ExchangeError::Connect { server, source: "connection refused".into() })
            }
            Manner::Hasty => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                Ok(answer(200, self.collect(&server, &request).to_json()))
            }
            Manner::Drips(each) => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let response = self.wait_and_collect(&server, request).await;
                if !response.envelopes.is_empty() {
                    tokio::time::sleep(each).await;
                }
                Ok(answer(200, response.to_json()))
            }
            Manner::Far { round_trip, bytes_per_second }
            | Manner::FarAndFalse { round_trip, bytes_per_second } => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let response = self.wait_and_collect(&server, request).await;
                let beyond = u64::from(matches!(manner, Manner::FarAndFalse { .. })) * ID_STEP;
                tokio::time::sleep(round_trip).await;
                let (head, ()) = collected(&response, beyond).map(drop).into_parts();
                let body = response.to_json();
                let line = self.with(server.as_str(), |mailbox| {
                    mailbox.given_bytes += body.len() as u64;
                    mailbox.line.clone()
                });
                Ok(Response::from_parts(head, over(line, body, bytes_per_second)))
            }
            manner => {
                let request: CollectRequest = serde_json::from_slice(&body).unwrap();
                let is_acknowledging = !request.acknowledge.is_empty();
                let is_odd = self.with(server.as_str(), |mailbox| mailbox.asked % 2 == 1);
                let is_cut = match manner {
                    Manner::BreaksOffAnswers => is_acknowledging,
                    Manner::Unsteady => is_odd,
                    _ => false,
                };
                if manner == Manner::Unsteady && is_odd {
                    self.collect(&server, &request);
                }
                if is_cut {
                    return Err(ExchangeError::Broken { server, source: "reset".into() });
                }
                Ok(collected(&self.wait_and_collect(&server, request).await, 0))
            }
        }
    }
}
