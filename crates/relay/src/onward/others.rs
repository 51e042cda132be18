//! Leaves mail with the recipient's own relays, when its homeserver can't be reached.
//!
//! Which relays those are, the recipient's signed record says: the one with which it registered here, or the one that its web site has. As
//! for every stranger's word, its URLs lead to no address that is denied to strangers.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{BoundedMap, Freshness, NamedBy, Patience, Peer, ask, signed_request};
use restante_federation_proto::{ServerName, canonicalise};
use restante_mailbox::Deposit;
use restante_relay_api::endpoints::{RECORD_FILE, send_relay_target};
use restante_relay_api::{Content, Extras, Receipt, Receipted, RelayRecord};
use serde_json::Value;
use tokio::time::Instant;

use crate::state::RelayState;

/// Relays of a record that are asked: it may name many more, and each of them may be somebody who never asked for it.
const RELAYS_MAX: usize = 3;

/// A web site is asked for a record no more often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Destinations whose relays are remembered; of others the web site is asked once more.
const DESTINATIONS_MAX: usize = 1024;

/// One that did not take mail, for whatever reason, is left alone for so long: a record may name third parties, and nobody makes us call
/// them for each transaction.
const REFUSED_REST: Duration = Duration::from_secs(600);

/// Relays that are left alone at the same time. One that is forgotten is called once more.
const RESTING_MAX: usize = 1024;

/// Signatures on a receipt that are looked at.
const RECEIPT_KEYS_MAX: usize = 2;

/// How long a web site may take.
const SITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a relay may take.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(30) };

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Signatures on a record that are looked at; a server has one or two keys.
const SIGNATURES_MAX: usize = 4;

/// What is known of destinations' relays.
pub(super) struct Found {
    /// What was found for each destination, and when.
    relays: BoundedMap<ServerName, (Instant, Vec<Peer>)>,
    /// Until when each place is left alone.
    resting: BoundedMap<String, Instant>,
}

/// What a relay gave for mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Its signed receipt.
    Receipt,
    /// A 200 as Dendrite's relay gives it.
    Plain,
}

impl Default for Found {
    fn default() -> Self {
        Self { relays: BoundedMap::new(DESTINATIONS_MAX), resting: BoundedMap::new(RESTING_MAX) }
    }
}

impl Found {
    fn rests(&mut self, relay: &Peer, now: Instant) -> bool {
        self.resting.get(&place(relay)).is_some_and(|until| *until > now)
    }

    fn refused(&mut self, relay: &Peer, now: Instant) {
        self.resting.insert(place(relay), now + REFUSED_REST);
    }
}

/// Who stands at one URL under many names is one.
fn place(relay: &Peer) -> String {
    match &relay.url {
        Some(url) => url.to_string().to_ascii_lowercase(),
        None => relay.name.as_str().to_ascii_lowercase(),
    }
}

/// The relays that `destination` itself names, those first that it wants tried first.
pub(super) async fn relays_of(relay: &RelayState, destination: &ServerName) -> Vec<Peer> {
    let now = Instant::now();
    if let Some((at, relays)) = relay.onward.memory().found.relays.get(destination)
        && now.duration_since(*at) < LOOK_AGAIN_AFTER
    {
        return relays.clone();
    }
    let record = match registered_record(relay, destination).await {
        Some(record) => Some(record),
        None => record_of_site(relay, destination).await,
    };
    let relays = record.map(|record| peers(record, relay.server_name())).unwrap_or_default();
    relay.onward.memory().found.relays.insert(destination.clone(), (now, relays.clone()));
    relays
}

/// It was verified when it came.
async fn registered_record(relay: &RelayState, destination: &ServerName) -> Option<RelayRecord> {
    let registration = relay.admission.registrations.stored(destination).await.ok()??;
    RelayRecord::parse(&registration.record, relay.clock.now()).ok()
}

async fn record_of_site(relay: &RelayState, destination: &ServerName) -> Option<RelayRecord> {
    let file = relay.exchange.web_file(destination, RECORD_FILE, SITE_PATIENCE).await.ok()?;
    let record = verified(relay, destination, &file).await;
    if record.is_none() {
        tracing::info!(mailbox = %destination, "the relay record on its web site does not count");
    }
    record
}

/// The record, if `destination` signed it with a key that is believed.
async fn verified(
    relay: &RelayState,
    destination: &ServerName,
    json: &Bytes,
) -> Option<RelayRecord> {
    let now = relay.clock.now();
    let version = RelayRecord::parse(json, now).ok()?.version;
    for key_id in RelayRecord::key_ids(json, destination).into_iter().take(SIGNATURES_MAX) {
        let key = relay.keys.key(destination, &key_id, Freshness::SignedAt(version)).await;
        let Ok(key) = key else { continue };
        if let Ok(record) = RelayRecord::verify(json, destination, (&key_id, &key), now) {
            return Some(record);
        }
    }
    None
}

/// This relay is none of them, and neither is the destination: those are what did not help.
fn peers(record: RelayRecord, own: &ServerName) -> Vec<Peer> {
    let RelayRecord { server_name, mut relays, .. } = record;
    relays.sort_by_key(|relay| relay.priority);
    relays.retain(|relay| relay.server_name != *own && relay.server_name != server_name);
    let peer = |relay: restante_relay_api::RecordedRelay| Peer {
        url: relay.url.and_then(|url| url.parse().ok()),
        name: relay.server_name,
        named_by: NamedBy::Stranger,
    };
    relays.into_iter().take(RELAYS_MAX).map(peer).collect()
}

/// Leaves `deposit` with the first of `relays` that takes it, as anybody may who brings the origin's proof.
pub(super) async fn leave(relay: &RelayState, relays: &[Peer], deposit: &Deposit) -> Option<Word> {
    let body = body(deposit)?;
    for other in relays {
        if relay.onward.memory().found.rests(other, Instant::now()) {
            continue;
        }
        if let Some(word) = leave_with(relay, other, deposit, body.clone()).await {
            return Some(word);
        }
        relay.onward.memory().found.refused(other, Instant::now());
    }
    None
}

async fn leave_with(
    relay: &RelayState,
    other: &Peer,
    deposit: &Deposit,
    body: Bytes,
) -> Option<Word> {
    let target = send_relay_target(&deposit.txn_id, &deposit.recipient);
    let request = signed_request(&relay.identity, Method::PUT, &target, &other.name, Some(body));
    let asked = ask(&*relay.exchange, other, request, PATIENCE, ANSWER_BYTES_MAX).await;
    match asked.ok().filter(|answer| answer.status == StatusCode::OK) {
        Some(answer) => word(relay, other, deposit, &answer.body).await,
        None => None,
    }
}

/// What the answer is worth, if it is a relay's: a receipt must be this relay's own for this mail, and without one it is JSON, as Dendrite's
/// `null` is.
async fn word(relay: &RelayState, other: &Peer, deposit: &Deposit, answer: &[u8]) -> Option<Word> {
    let Some(receipt) = Receipt::in_answer(answer) else {
        let json: Value = serde_json::from_slice(answer).ok()?;
        return (json.is_null() || json.is_object()).then_some(Word::Plain);
    };
    let of = Receipted {
        origin: &deposit.origin,
        destination: &deposit.recipient,
        txn_id: &deposit.txn_id,
        content_sha256: &deposit.content_hash.0,
    };
    for key_id in Receipt::key_ids(&receipt, &other.name).into_iter().take(RECEIPT_KEYS_MAX) {
        let key = relay.keys.key(&other.name, &key_id, Freshness::Believed).await;
        let Ok(key) = key else { continue };
        if Receipt::verify(&receipt, &other.name, &of, (&key_id, &key)).is_ok() {
            return Some(Word::Receipt);
        }
    }
    None
}

/// What the origin left, without what was for this relay alone.
fn body(deposit: &Deposit) -> Option<Bytes> {
    let extras = Extras::parse(deposit.members.clone()).ok()?.without_onward().ok()?;
    let content = Content::parse(deposit.content.clone()).ok()?;
    let body = content.to_deposit_body(&extras).ok()?;
    let canonical = canonicalise(&body).ok()?.into_owned();
    Some(canonical.into())
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::Timestamp;
    use restante_relay_api::RecordedRelay;

    use super::*;

    #[test]
    fn three_relays_of_a_record_are_asked_by_its_own_order_and_never_this_one() {
        let relay = |name: &str, priority| RecordedRelay {
            server_name: name.parse().unwrap(),
            url: Some("https://r.example".to_owned()),
            priority,
        };
        let record = RelayRecord {
            server_name: "b.example".parse().unwrap(),
            relays: vec![
                relay("five.example", 5),
                relay("own.example", 0),
                relay("b.example", 0),
                relay("two.example", 2),
                relay("four.example", 4),
                relay("three.example", 3),
            ],
            version: Timestamp::EPOCH,
        };
        let peers = peers(record, &"own.example".parse().unwrap());
        let names: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["two.example", "three.example", "four.example"]);
        assert!(peers.iter().all(|peer| peer.named_by == NamedBy::Stranger && peer.url.is_some()));
    }
}
