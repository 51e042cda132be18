//! Judges what a relay gave: whose it is, by the origin's own signature, and what becomes of it.

use std::time::Duration;

use bytes::Bytes;
use restante_federation::Freshness;
use restante_federation_proto::{KeyDocument, ServerName, Timestamp};
use restante_relay_api::limits::{AHEAD_MAX, TIME_TO_LIVE};
use restante_relay_api::{
    Capsule, Content, DeliveryReceipt, Extras, Proof, ProofClaim, Waybill, hex,
};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::mail::{Mail, Standing, StreamPlace};
use crate::site::Site;
use crate::store::seen::TransactionKey;
use crate::witness::Testimony;

/// How long keys may be looked for while mail that is in the inbox is judged; they are looked for again later.
pub(crate) const KEY_WAIT: Duration = Duration::from_secs(20);

/// The same while mail arrives. Short, because what comes behind it waits, and what is not decided by then is judged
/// again in the inbox, in peace.
pub(crate) const ARRIVAL_KEY_WAIT: Duration = Duration::from_secs(5);

/// Why mail is not judged yet.
const OUT_OF_TIME: &str = "no answer in time";

/// Signatures of a waybill that are tried: a homeserver has one key, or two while it changes them.
const WAYBILL_KEYS_MAX: usize = 2;

/// An envelope by the word of whoever gave it.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    /// Who sent it.
    pub(crate) origin: ServerName,
    /// Its id; `None` where the relay does not say.
    pub(crate) txn_id: Option<String>,
    /// The transaction.
    pub(crate) content: Bytes,
    /// The `org.restante.*` members as one object; empty for none.
    pub(crate) extras: Bytes,
    /// The relay.
    pub(crate) source: String,
}

/// What a proof turned out to be.
enum Verdict {
    Proven,
    Unknown(String),
    Forged(String),
}

/// Judges one envelope, by the keys that can be had before `until`. Everything becomes mail, so that the relay may drop
/// it and the operator sees it.
pub(crate) async fn judge(site: &Site, incoming: Incoming, until: Instant) -> Mail {
    let content = match Content::parse(incoming.content.clone()) {
        Ok(content) => content,
        Err(error) => return unreadable(incoming, &error.to_string()),
    };
    let extras = match Extras::parse(incoming.extras.clone()) {
        Ok(extras) => extras,
        Err(error) => return unreadable(incoming, &error.to_string()),
    };
    let Some(proof) = extras.proof.clone() else {
        if DeliveryReceipt::in_transaction(content.canonical()).is_some() {
            let reason = format!("a receipt without a proof; relay {} gave it", incoming.source);
            return mail(incoming, &content, None, Standing::Forged(reason));
        }
        return Mail { request_id: extras.request_id(), ..proofless(incoming, &content) };
    };
    let claim = match fitting_claim(site, &incoming, &proof, &content) {
        Ok(claim) => claim,
        Err(reason) => {
            let reason = format!("{reason}; relay {} gave it", incoming.source);
            return mail(incoming, &content, Some(proof), Standing::Forged(reason));
        }
    };
    let document = document_of(&claim, &extras);
    offer_keys(site, document.as_ref()).await;
    let verdict = verdict(site, &claim, &content, document.as_ref(), until).await;
    let source = &incoming.source;
    let standing = match verdict {
        // Of any age: what it says is as true as it was, and told twice it counts once.
        Verdict::Proven => match DeliveryReceipt::in_transaction(content.canonical()) {
            Some(receipts) => Standing::Receipts(receipts),
            None => age(&content, site.clock.now()),
        },
        Verdict::Unknown(reason) => {
            Standing::Unverified(format!("it can't be verified yet: {reason}"))
        }
        Verdict::Forged(reason) => Standing::Forged(format!(
            "the proof does not verify ({reason}); relay {source} gave it"
        )),
    };
    let mut mail = mail(incoming, &content, Some(proof), standing);
    mail.request_id = extras.request_id();
    mail.key.origin = claim.origin().clone();
    mail.key.txn_id = claim.txn_id().to_owned();
    let is_receipt = matches!(mail.standing, Standing::Receipts(_));
    if let Some(record) = extras.record.as_ref().filter(|_| mail.is_proven() || is_receipt) {
        site.hearsay.brought(claim.origin(), record);
    }
    if mail.is_proven() {
        let json = extras.waybill.as_ref();
        let waybill = verified_waybill(site, json, claim.origin(), content.sha256(), until).await;
        match waybill {
            Ok(waybill) => {
                mail.extras = capsule(site, waybill.as_ref(), &extras, &mail.source).await;
                mail.place = waybill.map(StreamPlace::from);
            }
            Err(OutOfTime) => {
                let reason = format!("the key of its waybill is looked for: {OUT_OF_TIME}");
                mail.standing = Standing::Unverified(reason);
            }
        }
    }
    mail
}

/// The keys could not be had in time.
struct OutOfTime;

async fn verdict(
    site: &Site,
    claim: &ProofClaim,
    content: &Content,
    document: Option<&KeyDocument>,
    until: Instant,
) -> Verdict {
    let unknown = || Verdict::Unknown(OUT_OF_TIME.to_owned());
    match timeout_at(until, verify(site, claim, content)).await.unwrap_or_else(|_| unknown()) {
        Verdict::Unknown(reason) => {
            let by_events = verify_by_events(site, claim, content, document, &reason);
            let verdict = timeout_at(until, by_events).await;
            verdict.unwrap_or(Verdict::Unknown(reason))
        }
        verdict => verdict,
    }
}

/// The place by a waybill that the origin signed with a believed key; any other says nothing.
pub(crate) async fn place(
    site: &Site,
    waybill: Option<&Bytes>,
    origin: &ServerName,
    sha256: &[u8; 32],
) -> Option<StreamPlace> {
    let until = Instant::now() + KEY_WAIT;
    let waybill = verified_waybill(site, waybill, origin, sha256, until).await;
    waybill.ok().flatten().map(StreamPlace::from)
}

impl From<Waybill> for StreamPlace {
    fn from(waybill: Waybill) -> Self {
        let Waybill { stream, seq, deposited_at, .. } = waybill;
        Self { stream, seq, deposited_at }
    }
}

/// The capsule that the origin's node vouches for, with its keys offered to the key ring, which decides about them;
/// empty for none.
async fn capsule(site: &Site, waybill: Option<&Waybill>, extras: &Extras, source: &str) -> Bytes {
    let Some(json) = &extras.capsule else { return Bytes::new() };
    let capsule = match Capsule::parse(json) {
        Ok(capsule) => capsule,
        Err(error) => {
            tracing::warn!(relay = source, %error, "a capsule can't be read; its transaction goes without");
            return Bytes::new();
        }
    };
    let vouched = waybill.and_then(|waybill| waybill.capsule_sha256.as_deref());
    if vouched != Some(hex(capsule.sha256()).as_str()) {
        tracing::warn!(
            relay = source,
            "a capsule is not the one that its origin's node left; its transaction goes without"
        );
        return Bytes::new();
    }
    for (server, document) in capsule.keys() {
        let document = KeyDocument::parse(document.clone()).ok();
        let document = document.filter(|document| document.server_name() == server);
        offer_keys(site, document.as_ref()).await;
    }
    capsule.canonical().clone()
}

async fn verified_waybill(
    site: &Site,
    waybill: Option<&Bytes>,
    origin: &ServerName,
    sha256: &[u8; 32],
    until: Instant,
) -> Result<Option<Waybill>, OutOfTime> {
    let Some(json) = waybill else { return Ok(None) };
    for key_id in Waybill::key_ids(json, origin).into_iter().take(WAYBILL_KEYS_MAX) {
        let key = site.keys.key(origin, &key_id, Freshness::Believed);
        let Ok(key) = timeout_at(until, key).await.map_err(|_| OutOfTime)? else { continue };
        let verified = Waybill::verify(json, origin, site.server_name(), sha256, (&key_id, &key));
        if verified.is_ok() {
            return Ok(verified.ok());
        }
    }
    Ok(None)
}

fn fitting_claim(
    site: &Site,
    incoming: &Incoming,
    proof: &Proof,
    content: &Content,
) -> Result<ProofClaim, String> {
    let claim = proof.claim().map_err(|error| error.to_string())?;
    let txn_id = incoming.txn_id.as_deref().unwrap_or(claim.txn_id());
    claim.check_fit(site.server_name(), txn_id, content).map_err(|error| error.to_string())?;
    Ok(claim)
}

/// The origin's document, if it came along.
fn document_of(claim: &ProofClaim, extras: &Extras) -> Option<KeyDocument> {
    let document = KeyDocument::parse(extras.keys.clone()?).ok()?;
    (document.server_name() == claim.origin()).then_some(document)
}

/// A document that came along counts only if a key that is believed already signed it; the key ring decides.
async fn offer_keys(site: &Site, document: Option<&KeyDocument>) {
    let Some(document) = document else { return };
    let believed = site.keys.believed(document.server_name()).await;
    if believed.is_none_or(|believed| believed.document.raw() != document.raw()) {
        site.keys.offer(document).await;
    }
}

/// When nobody can be asked for the key: events that the homeserver holds may prove the document that came along.
async fn verify_by_events(
    site: &Site,
    claim: &ProofClaim,
    content: &Content,
    document: Option<&KeyDocument>,
    reason: &str,
) -> Verdict {
    let lists_key = |document: &&KeyDocument| document.verify_keys().contains_key(claim.key_id());
    let Some(document) = document.filter(lists_key) else {
        return Verdict::Unknown(reason.to_owned());
    };
    match site.witness.hear(site, document, content.raw()).await {
        Testimony::Believed => verify(site, claim, content).await,
        Testimony::NotBelieved(why) => Verdict::Unknown(format!("{reason}; {why}")),
    }
}

async fn verify(site: &Site, claim: &ProofClaim, content: &Content) -> Verdict {
    let freshness = content.origin_server_ts().map_or(Freshness::Believed, |signed_at| {
        // The cast saturates; times that are out of bounds are refused by their age.
        Freshness::SignedAt(Timestamp::from_millis(signed_at as u64))
    });
    match site.keys.key(claim.origin(), claim.key_id(), freshness).await {
        Ok(key) => match claim.verify(content, &key) {
            Ok(()) => Verdict::Proven,
            Err(error) => Verdict::Forged(error.to_string()),
        },
        // A key that the believed document does not list may be the one that the server changed to since: only a
        // signature that fails against a believed key is forged.
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}

/// What becomes of proven mail, by its age: signatures never expire, so the signed time must bound it.
pub(crate) fn age(content: &Content, now: Timestamp) -> Standing {
    let Some(signed_at) = content.origin_server_ts() else {
        return Standing::Parked("it does not say when it was signed".to_owned());
    };
    // Any JSON number is allowed there; a comparison of floats is exact enough for ages of days.
    if signed_at < now.before(TIME_TO_LIVE).as_millis() as f64 {
        return Standing::Parked("it was signed longer ago than mail is kept".to_owned());
    }
    if signed_at > now.after(AHEAD_MAX).as_millis() as f64 {
        // Held and judged again, not parked: one of the two clocks is wrong, and once it is set right, or has caught up,
        // this is mail like any other. Nothing bounds how far ahead it may be: a machine without a battery for its
        // clock wakes up in 1970.
        return Standing::Unverified(
            "it was signed in the future; check this machine's clock and the origin's".to_owned(),
        );
    }
    Standing::Waiting
}

fn proofless(incoming: Incoming, content: &Content) -> Mail {
    let origin = content.origin().cloned();
    let mut mail = mail(incoming, content, None, Standing::Proofless);
    mail.key.origin = origin.unwrap_or(mail.key.origin);
    mail
}

fn mail(incoming: Incoming, content: &Content, proof: Option<Proof>, standing: Standing) -> Mail {
    Mail {
        key: TransactionKey {
            origin: incoming.origin,
            txn_id: incoming.txn_id.unwrap_or_default(),
            sha256: *content.sha256(),
        },
        content: content.raw().clone(),
        proof: proof.map(|proof| (proof.uri, proof.authorization)),
        place: None,
        extras: incoming.extras,
        source: incoming.source,
        request_id: None,
        standing,
    }
}

fn unreadable(incoming: Incoming, reason: &str) -> Mail {
    let reason = format!("it can't be read ({reason}); relay {} gave it", incoming.source);
    Mail {
        key: TransactionKey {
            origin: incoming.origin,
            txn_id: incoming.txn_id.unwrap_or_default(),
            sha256: Sha256::digest(&incoming.content).into(),
        },
        content: incoming.content,
        proof: None,
        place: None,
        extras: incoming.extras,
        source: incoming.source,
        request_id: None,
        standing: Standing::Forged(reason),
    }
}
