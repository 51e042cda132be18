//! Leaves mail with the recipient's own relays, when its homeserver can't be reached.
//!
//! Which relays those are, the recipient's signed record says: the one with which it registered here, or the one that its web site has. As
//! for every stranger's word, its URLs lead to no address that is denied to strangers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use restante_federation::{
    BoundedMap, Freshness, NamedBy, Patience, Peer, collect_limited, signed_request,
};
use restante_federation_proto::{ServerName, canonicalise};
use restante_mailbox::Deposit;
use restante_relay_api::endpoints::{RECORD_FILE, send_relay_target};
use restante_relay_api::{Content, Extras, RelayRecord};
use tokio::time::{Instant, timeout};

use crate::state::RelayState;

/// Relays of a record that are asked: it may name many more, and each of them may be somebody who never asked for it.
const RELAYS_MAX: usize = 3;

/// A web site is asked for a record no more often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// Destinations whose relays are remembered; of others the web site is asked once more.
const DESTINATIONS_MAX: usize = 1024;

/// How long a web site may take.
const SITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a relay may take.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(30) };

/// Bytes of a relay's answer: a receipt, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Signatures on a record that are looked at; a server has one or two keys.
const SIGNATURES_MAX: usize = 4;

/// What was found of the relays of each destination, and when.
pub(super) struct Found(BoundedMap<ServerName, (Instant, Vec<Peer>)>);

impl Default for Found {
    fn default() -> Self {
        Self(BoundedMap::new(DESTINATIONS_MAX))
    }
}

/// The relays that `destination` itself names, those first that it wants tried first.
pub(super) async fn relays_of(relay: &RelayState, destination: &ServerName) -> Vec<Peer> {
    let now = Instant::now();
    if let Some((at, relays)) = relay.onward.memory().found.0.get(destination)
        && now.duration_since(*at) < LOOK_AGAIN_AFTER
    {
        return relays.clone();
    }
    let record = match registered_record(relay, destination).await {
        Some(record) => Some(record),
        None => record_of_site(relay, destination).await,
    };
    let relays = record.map(|record| peers(record, relay.server_name())).unwrap_or_default();
    relay.onward.memory().found.0.insert(destination.clone(), (now, relays.clone()));
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

/// Leaves `deposit` with all `relays` at once, as anybody may who brings the origin's proof; whether one of them took it.
pub(super) async fn leave(relay: &RelayState, relays: &[Peer], deposit: &Deposit) -> bool {
    let Some(body) = body(deposit) else { return false };
    let target = send_relay_target(&deposit.txn_id, &deposit.recipient);
    let asked = relays.iter().map(async |other| {
        let content = Some(body.clone());
        let request = signed_request(&relay.identity, Method::PUT, &target, &other.name, content);
        let whole = async {
            let answer = relay.exchange.exchange(other, request, PATIENCE).await.ok()?;
            let (head, body) = answer.into_parts();
            collect_limited(body, ANSWER_BYTES_MAX).await.ok()?;
            Some(head.status)
        };
        let status = timeout(PATIENCE.connect + PATIENCE.answer, whole).await.ok().flatten();
        status == Some(StatusCode::OK)
    });
    join_all(asked).await.contains(&true)
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
