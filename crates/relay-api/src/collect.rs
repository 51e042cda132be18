//! `collect`: a batch after a cursor, acknowledgements, and a wait, in one round trip.

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp, canonicalise, members};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Losses;
use crate::MailDigest;
use crate::endpoints::MEMBER_PREFIX;
use crate::relay_txn::append_members;

/// The request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectRequest {
    /// Only entries above this id; 0 for all.
    #[serde(default)]
    pub after: u64,
    /// Entries that the caller has durably; independent of `after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledge: Vec<CollectAcknowledgement>,
    /// Mail of the caller's that it has durably from elsewhere: the relay drops it as acknowledged, and takes no late copy; at most [`HAVE_MAX`](crate::limits::HAVE_MAX). A relay that does not know this member
    /// ignores it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub have: Vec<MailDigest>,
    /// Envelopes at most.
    #[serde(default = "default_limit")]
    pub limit: u64,
    /// Bytes at most; at least one envelope comes whatever its size.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// How long to wait for the first envelope, milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
    /// Losses up to this time, as an earlier answer told them, are known to the caller and are told no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_until: Option<Timestamp>,
    /// The caller's time of signing; bounds replays.
    pub signed_at: Timestamp,
}

fn default_limit() -> u64 {
    50
}

fn default_max_bytes() -> u64 {
    1024 * 1024
}

/// One entry that the caller has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectAcknowledgement {
    /// Its id.
    pub id: u64,
    /// SHA-256 of the content that the caller has, lower-case hex; a different one removes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl CollectRequest {
    /// The body in canonical form, ready to be signed.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a struct of numbers and strings is JSON");
        canonicalise(&json).expect("what serde_json wrote is well-formed").into_owned()
    }
}

/// What waits in the mailbox, after this request's acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Envelopes.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the oldest was deposited.
    pub oldest_at: Option<Timestamp>,
}

/// One envelope on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireEnvelope {
    /// Its number in the mailbox.
    pub id: u64,
    /// SHA-256 of the canonical content, lower-case hex.
    pub sha256: String,
    /// Who sent it, by the relay's word; the proof decides.
    pub origin: ServerName,
    /// The transaction's id, by the relay's word.
    pub txn_id: String,
    /// When it was left.
    pub deposited_at: Timestamp,
    /// The transaction's content.
    pub content: Bytes,
    /// The `org.restante.*` members as one object; empty for none.
    pub extras: Bytes,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectResponse {
    /// Envelopes in the order of their deposit.
    pub envelopes: Vec<WireEnvelope>,
    /// What waits.
    pub queued: Queued,
    /// What never reached its owner, until the caller says that it has heard of it.
    pub told: Told,
}

/// What a relay tells the owner of a mailbox beside its mail; each member may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// Mail for which there was no room.
    #[serde(default)]
    pub turned_away: Losses,
    /// Mail that nobody collected in its time.
    #[serde(default)]
    pub expired: Losses,
    /// Mail that the relay's operator removed.
    #[serde(default)]
    pub dropped: Losses,
    /// Whether the relay's operator holds the mailbox: it takes mail and hands none over until it is released.
    #[serde(default)]
    pub held: bool,
}

impl Told {
    /// The time of the newest loss, which a later request confirms as heard.
    pub fn until(&self) -> Option<Timestamp> {
        let all = [&self.turned_away, &self.expired, &self.dropped];
        all.into_iter().flat_map(|losses| &losses.origins).map(|losses| losses.until).max()
    }
}

#[derive(Serialize, Deserialize)]
struct EnvelopeHead<'a> {
    id: u64,
    sha256: std::borrow::Cow<'a, str>,
    origin: ServerName,
    txn_id: std::borrow::Cow<'a, str>,
    deposited_at: Timestamp,
}

#[derive(Deserialize)]
struct ResponseShape<'a> {
    #[serde(borrow)]
    envelopes: Vec<&'a RawValue>,
    queued: Queued,
    #[serde(flatten)]
    told: Told,
}

#[derive(Deserialize)]
struct TransactionMember<'a> {
    #[serde(borrow)]
    transaction: &'a RawValue,
}

impl CollectResponse {
    /// The JSON body.
    pub fn to_json(&self) -> Bytes {
        let size: usize =
            self.envelopes.iter().map(|e| e.content.len() + e.extras.len() + 512).sum();
        let mut json = Vec::with_capacity(size + 256);
        json.extend_from_slice(b"{\"envelopes\":[");
        for (index, envelope) in self.envelopes.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            envelope.append_json(&mut json);
        }
        json.extend_from_slice(b"],\"queued\":");
        let queued = serde_json::to_vec(&self.queued).expect("three numbers are JSON");
        json.extend_from_slice(&queued);
        let told = serde_json::to_vec(&self.told).expect("texts, numbers and lists are JSON");
        // Both are objects; one comma joins them.
        json.push(b',');
        json.extend_from_slice(&told[1..]);
        json.into()
    }

    /// Reads an answer; content and members keep their bytes.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let shape: ResponseShape<'_> = serde_json::from_slice(body)?;
        let envelopes = shape.envelopes.iter().map(|raw| WireEnvelope::parse(raw.get().as_bytes()));
        Ok(Self {
            envelopes: envelopes.collect::<Result<_, _>>()?,
            queued: shape.queued,
            told: shape.told,
        })
    }
}

impl WireEnvelope {
    fn append_json(&self, json: &mut Vec<u8>) {
        let head = EnvelopeHead {
            id: self.id,
            sha256: self.sha256.as_str().into(),
            origin: self.origin.clone(),
            txn_id: self.txn_id.as_str().into(),
            deposited_at: self.deposited_at,
        };
        let head = serde_json::to_vec(&head).expect("a struct of numbers and strings is JSON");
        let open = head.strip_suffix(b"}").expect("a struct is written as an object");
        json.extend_from_slice(open);
        json.extend_from_slice(b",\"transaction\":");
        json.extend_from_slice(&self.content);
        append_members(json, &self.extras);
        json.push(b'}');
    }

    fn parse(raw: &[u8]) -> Result<Self, serde_json::Error> {
        let head: EnvelopeHead<'_> = serde_json::from_slice(raw)?;
        let body: TransactionMember<'_> = serde_json::from_slice(raw)?;
        let mut extras = Vec::new();
        for member in members(raw).unwrap_or_default() {
            if member.name.starts_with(MEMBER_PREFIX) {
                extras.push(if extras.is_empty() { b'{' } else { b',' });
                extras.extend_from_slice(member.raw);
            }
        }
        if !extras.is_empty() {
            extras.push(b'}');
        }
        Ok(Self {
            id: head.id,
            sha256: head.sha256.into_owned(),
            origin: head.origin,
            txn_id: head.txn_id.into_owned(),
            deposited_at: head.deposited_at,
            content: Bytes::copy_from_slice(body.transaction.get().as_bytes()),
            extras: extras.into(),
        })
    }
}
