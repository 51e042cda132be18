//! The body of a deposit: the transaction that was signed, and what its node added.

use std::fmt;

use bytes::Bytes;
use restante_federation_proto::{CanonicalJsonError, Member, ServerName, canonicalise, members};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::endpoints::{
    CAPSULE_MEMBER, KEYS_MEMBER, MEMBER_PREFIX, ONWARD_MEMBER, PROOF_MEMBER, RECORD_MEMBER,
    REQUEST_ID_MEMBER, WAYBILL_MEMBER,
};
use crate::limits::{CAPSULE_BYTES_MAX, EDUS_MAX, EXTRAS_BESIDE_CAPSULE_BYTES_MAX, PDUS_MAX};
use crate::{Capsule, Proof, ProofError, RequestId};

/// A transaction's content: the body without `org.restante.*` members, its canonical form and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    raw: Bytes,
    canonical: Bytes,
    sha256: [u8; 32],
    origin: Option<ServerName>,
    origin_server_ts: Option<Millis>,
}

/// A signed time, any JSON number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Millis(f64);

/// Compares bit patterns, so that equality is total.
impl Eq for Millis {}

/// The `org.restante.*` members, as received.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// The members as one JSON object; empty when there are none. Members of the prefix that are
    /// not known here are kept as well, for those who know them.
    pub json: Bytes,
    /// The proof.
    pub proof: Option<Proof>,
    /// The waybill's JSON.
    pub waybill: Option<Bytes>,
    /// The key document's JSON.
    pub keys: Option<Bytes>,
    /// The capsule's JSON; [`Capsule::parse`] reads it.
    pub capsule: Option<Bytes>,
    /// The JSON of the origin's relay record.
    pub record: Option<Bytes>,
    /// Whether the relay is asked to deliver it onward; `None` if nothing is said of it.
    pub onward: Option<bool>,
}

/// A deposit's body, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepositBody {
    /// What the origin signed.
    pub content: Content,
    /// What its node added.
    pub extras: Extras,
}

/// Why a body is no transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepositBodyError {
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] CanonicalJsonError),
    /// A member is not of its form.
    #[error("{member} must be {expected}")]
    Member {
        /// The member's name.
        member: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Too many PDUs or EDUs.
    #[error("a transaction holds at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs")]
    TooMany,
    /// The added members are larger than a relay keeps.
    #[error(
        "the org.restante members are larger than {EXTRAS_BESIDE_CAPSULE_BYTES_MAX} bytes, and {CAPSULE_BYTES_MAX} more for a capsule"
    )]
    ExtrasTooLarge,
    /// The proof does not parse.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl DepositBody {
    /// Takes a deposit's body apart. Content keeps every byte of the members that are not ours.
    pub fn parse(body: Bytes) -> Result<Self, DepositBodyError> {
        let all = members(&body)?;
        if !all.iter().any(|member| member.name.starts_with(MEMBER_PREFIX)) {
            return Ok(Self { content: Content::parse(body)?, extras: Extras::default() });
        }
        let (added, signed): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|member| member.name.starts_with(MEMBER_PREFIX));
        let extras = Extras::from_members(&added)?;
        Ok(Self { content: Content::parse(join(&signed).into())?, extras })
    }
}

impl Content {
    /// Checks a transaction's content and computes its canonical form.
    pub fn parse(raw: Bytes) -> Result<Self, DepositBodyError> {
        let canonical = match canonicalise(&raw)? {
            std::borrow::Cow::Borrowed(_) => raw.clone(),
            std::borrow::Cow::Owned(rebuilt) => rebuilt.into(),
        };
        let mut content = Self {
            sha256: Sha256::digest(&canonical).into(),
            raw,
            origin: None,
            origin_server_ts: None,
            canonical,
        };
        let canonical = content.canonical.clone();
        for member in members(&canonical)? {
            content.take(&member)?;
        }
        Ok(content)
    }

    fn take(&mut self, member: &Member<'_>) -> Result<(), DepositBodyError> {
        match member.name.as_ref() {
            "origin" => {
                let wrong =
                    DepositBodyError::Member { member: "origin", expected: "a server name" };
                self.origin = Some(serde_json::from_slice(member.value).map_err(|_| wrong)?);
            }
            "origin_server_ts" => {
                let wrong = DepositBodyError::Member {
                    member: "origin_server_ts",
                    expected: "a number of milliseconds",
                };
                self.origin_server_ts =
                    Some(Millis(serde_json::from_slice(member.value).map_err(|_| wrong)?));
            }
            "pdus" => at_most(member.value, "pdus", PDUS_MAX)?,
            "edus" => at_most(member.value, "edus", EDUS_MAX)?,
            _ => {}
        }
        Ok(())
    }

    /// The bytes as received, without `org.restante.*` members.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The canonical form: what the origin signed.
    pub fn canonical(&self) -> &Bytes {
        &self.canonical
    }

    /// SHA-256 of the canonical form.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The member `origin`.
    pub fn origin(&self) -> Option<&ServerName> {
        self.origin.as_ref()
    }

    /// The member `origin_server_ts`, milliseconds; any JSON number.
    pub fn origin_server_ts(&self) -> Option<f64> {
        self.origin_server_ts.map(|millis| millis.0)
    }

    /// The content with `origin` added where it is missing, as an old Dendrite leaves it out.
    pub fn with_origin(self, origin: &ServerName) -> Result<Self, DepositBodyError> {
        if self.origin.is_some() {
            return Ok(self);
        }
        let quoted = serde_json::to_vec(origin).expect("a server name is always a JSON string");
        let added = Member {
            name: "origin".into(),
            value: &quoted,
            raw: &[b"\"origin\":".as_slice(), &quoted].concat(),
        };
        let mut all = vec![added];
        all.extend(members(&self.raw)?);
        Self::parse(join(&all).into())
    }

    /// The body of a deposit: this content with the members of `extras` behind it.
    pub fn to_deposit_body(&self, extras: &Extras) -> Result<Bytes, DepositBodyError> {
        let mut all = members(&self.canonical)?;
        if !extras.json.is_empty() {
            all.extend(members(&extras.json)?);
        }
        Ok(join(&all).into())
    }
}

impl Extras {
    /// The members that a node adds to what it leaves.
    pub fn new(proof: &Proof, waybill: &[u8], keys: &[u8]) -> Result<Self, DepositBodyError> {
        let proof = serde_json::to_vec(proof).expect("a proof is two strings");
        let json = [
            b"{\"".as_slice(),
            PROOF_MEMBER.as_bytes(),
            b"\":",
            &proof,
            b",\"",
            WAYBILL_MEMBER.as_bytes(),
            b"\":",
            waybill,
            b",\"",
            KEYS_MEMBER.as_bytes(),
            b"\":",
            keys,
            b"}",
        ]
        .concat();
        Self::parse(json.into())
    }

    /// The members beside what a node sends of its own, which has no place in its homeserver's stream.
    pub fn without_waybill(proof: &Proof, keys: &[u8]) -> Result<Self, DepositBodyError> {
        let proof = serde_json::to_vec(proof).expect("a proof is two strings");
        let names = [PROOF_MEMBER, KEYS_MEMBER].map(str::as_bytes);
        let parts: [&[u8]; 9] =
            [b"{\"", names[0], b"\":", &proof, b",\"", names[1], b"\":", keys, b"}"];
        Self::parse(parts.concat().into())
    }

    /// The same members with a capsule behind them; its hash belongs into the waybill.
    pub fn with_capsule(self, capsule: &Capsule) -> Result<Self, DepositBodyError> {
        self.with_member(CAPSULE_MEMBER, capsule.canonical())
    }

    /// The same members with the origin's relay record behind them.
    pub fn with_record(self, record: &[u8]) -> Result<Self, DepositBodyError> {
        self.with_member(RECORD_MEMBER, record)
    }

    /// The same members, asking the relay to deliver the mail onward.
    pub fn asking_onward(self) -> Result<Self, DepositBodyError> {
        self.with_member(ONWARD_MEMBER, b"true")
    }

    /// The same members without that: it is for one relay, and travels no further.
    pub fn without_onward(self) -> Result<Self, DepositBodyError> {
        if self.onward.is_none() {
            return Ok(self);
        }
        let mut kept = members(&self.json)?;
        kept.retain(|member| member.name != ONWARD_MEMBER);
        if kept.is_empty() { Ok(Self::default()) } else { Self::from_members(&kept) }
    }

    /// The same members with the id by which logs name the delivery behind them.
    pub fn with_request_id(self, id: &RequestId) -> Result<Self, DepositBodyError> {
        let value = serde_json::to_vec(id).expect("a request id is always a JSON string");
        self.with_member(REQUEST_ID_MEMBER, &value)
    }

    fn with_member(self, name: &str, value: &[u8]) -> Result<Self, DepositBodyError> {
        let raw = [b"\"", name.as_bytes(), b"\":", value].concat();
        let added = Member { name: name.into(), value, raw: raw.as_ref() };
        let mut all = if self.json.is_empty() { Vec::new() } else { members(&self.json)? };
        all.push(added);
        Self::from_members(&all)
    }

    /// The id by which logs name the delivery. It is for people alone: one of another form counts as none.
    pub fn request_id(&self) -> Option<RequestId> {
        let all = members(&self.json).ok()?;
        let member = all.iter().find(|member| member.name == REQUEST_ID_MEMBER)?;
        serde_json::from_slice(member.value).ok()
    }

    /// Reads the members back from the object that [`Extras::json`] is; empty bytes are no members.
    pub fn parse(json: Bytes) -> Result<Self, DepositBodyError> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        Self::from_members(&members(&json)?)
    }

    fn from_members(added: &[Member<'_>]) -> Result<Self, DepositBodyError> {
        let mut extras = Self { json: join(added).into(), ..Self::default() };
        let is_capsule = |member: &&Member<'_>| member.name == CAPSULE_MEMBER;
        let capsule: usize = added.iter().filter(is_capsule).map(|member| member.raw.len()).sum();
        let beside = extras.json.len() - capsule;
        if beside > EXTRAS_BESIDE_CAPSULE_BYTES_MAX || capsule > CAPSULE_MEMBER_BYTES_MAX {
            return Err(DepositBodyError::ExtrasTooLarge);
        }
        canonicalise(&extras.json)?;
        for member in added.iter().filter(|member| member.value != b"null") {
            match member.name.as_ref() {
                PROOF_MEMBER => extras.proof = Some(Proof::parse(member.value)?),
                WAYBILL_MEMBER => extras.waybill = Some(Bytes::copy_from_slice(member.value)),
                KEYS_MEMBER => extras.keys = Some(Bytes::copy_from_slice(member.value)),
                RECORD_MEMBER => extras.record = Some(Bytes::copy_from_slice(member.value)),
                ONWARD_MEMBER => {
                    let expected = "true or false";
                    let wrong = DepositBodyError::Member { member: ONWARD_MEMBER, expected };
                    extras.onward = Some(serde_json::from_slice(member.value).map_err(|_| wrong)?);
                }
                CAPSULE_MEMBER => extras.capsule = Some(Bytes::copy_from_slice(member.value)),
                _ => {}
            }
        }
        Ok(extras)
    }
}

/// The largest capsule, with its name written as wastefully as JSON allows: each letter as an escape of six.
const CAPSULE_MEMBER_BYTES_MAX: usize = CAPSULE_BYTES_MAX + 6 * CAPSULE_MEMBER.len() + 8;

fn at_most(value: &[u8], member: &'static str, max: usize) -> Result<(), DepositBodyError> {
    let length: Option<Length> = serde_json::from_slice(value)
        .map_err(|_| DepositBodyError::Member { member, expected: "a list or null" })?;
    if length.is_some_and(|Length(length)| length > max) {
        return Err(DepositBodyError::TooMany);
    }
    Ok(())
}

/// Counts a list's elements and keeps none: a body of the largest size may hold eight million.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(LengthVisitor)
    }
}

struct LengthVisitor;

impl<'de> Visitor<'de> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Length, A::Error> {
        let mut length = 0;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            length += 1;
        }
        Ok(Length(length))
    }
}

fn join(members: &[Member<'_>]) -> Vec<u8> {
    let length: usize = members.iter().map(|member| member.raw.len() + 1).sum();
    let mut object = Vec::with_capacity(length + 2);
    object.push(b'{');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            object.push(b',');
        }
        object.extend_from_slice(member.raw);
    }
    object.push(b'}');
    object
}
