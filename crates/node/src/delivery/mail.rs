//! A transaction of the homeserver's, read once: what is sent directly, and what a relay needs beside it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use restante_federation::{Body, Identity, full};
use restante_federation_proto::{
    CanonicalJsonError, KeyDocument, RequestTarget, ServerName, canonicalise, members,
};
use restante_relay_api::endpoints::{MEMBER_PREFIX, WAYBILL_HEADER};
use restante_relay_api::{
    Capsule, Content, DepositBodyError, Extras, Proof, ProofClaim, ProofError, REQUEST_ID_HEADER,
    RequestId, Waybill, hex,
};

use super::deposits::Account;
use super::ledger::Place;
use crate::outbox::copy::is_lasting;
use crate::store::ledger::Transaction;

/// A `PUT /send` as it came from the homeserver.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Whom it is for.
    pub(crate) destination: ServerName,
    /// The homeserver's id for it.
    pub(crate) txn_id: String,
    /// The target, byte for byte.
    pub(crate) target: RequestTarget,
    /// The headers that may travel on, `Authorization` among them.
    pub(crate) headers: HeaderMap,
    /// The `Authorization` that is signed with the key in use.
    pub(crate) authorization: String,
    /// The body, byte for byte.
    pub(crate) body: Bytes,
}

/// A transaction whose content could be read.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    outgoing: Outgoing,
    content: Content,
    proof: Result<Proof, NotRelayable>,
}

/// What travels beside a transaction and its waybill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Our key document.
    pub(super) keys: &'a KeyDocument,
    /// Events that the homeserver never sent.
    pub(super) capsule: Option<&'a Capsule>,
    /// Our relay record, so that answers can be left.
    pub(super) record: Option<&'a Bytes>,
    /// The id by which logs name the delivery.
    pub(super) id: &'a RequestId,
}

/// Why a transaction can only go directly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRelayable {
    /// A relay could not tell the members apart.
    #[error("its content has org.restante members of its own")]
    OwnMembers,
    /// The recipient would refuse it.
    #[error(
        "its signature can't serve as a proof ({0}); check that signing_key names the homeserver's present key"
    )]
    NoProof(#[from] ProofError),
}

impl Mail {
    /// Reads a transaction; an error means that only the destination itself can judge it.
    pub(crate) fn read(outgoing: Outgoing, identity: &Identity) -> Result<Self, DepositBodyError> {
        let content = Content::parse(outgoing.body.clone())?;
        let proof = proof(&outgoing, &content, identity);
        Ok(Self { outgoing, content, proof })
    }

    /// Reads a copy of what was read so before. Its signature was the homeserver's then: that its key has changed since is
    /// for its recipient to judge.
    pub(crate) fn of_copy(outgoing: Outgoing) -> Result<Self, DepositBodyError> {
        let content = Content::parse(outgoing.body.clone())?;
        let proof = fitting_proof(&outgoing, &content).map(|(proof, _)| proof);
        Ok(Self { outgoing, content, proof })
    }

    /// Whether a copy of it is worth keeping.
    pub(super) fn is_lasting(&self) -> bool {
        is_lasting(&self.outgoing.body)
    }

    /// Whom it is for.
    pub(crate) fn destination(&self) -> &ServerName {
        &self.outgoing.destination
    }

    /// The homeserver's id for it.
    pub(crate) fn txn_id(&self) -> &str {
        &self.outgoing.txn_id
    }

    /// Its content, canonical.
    pub(crate) fn content(&self) -> &Bytes {
        self.content.canonical()
    }

    /// What identifies it in the ledger.
    pub(crate) fn transaction(&self) -> Transaction {
        Transaction {
            destination: self.outgoing.destination.clone(),
            txn_id: self.outgoing.txn_id.clone(),
            content_sha256: *self.content.sha256(),
        }
    }

    /// How its deposit at relays is accounted for.
    pub(super) fn account(
        &self,
        seq: u64,
        distrusted: BTreeSet<ServerName>,
        capsule: Option<&Capsule>,
    ) -> Account {
        Account {
            seq,
            outgoing: self.outgoing.clone(),
            content_sha256: *self.content.sha256(),
            distrusted,
            capsule: capsule.map(|capsule| capsule.canonical().clone()),
            copy: OnceLock::new(),
        }
    }

    /// Its waybill, signed; it vouches for the capsule that goes along.
    pub(crate) fn waybill(
        &self,
        stream: &str,
        place: &Place,
        capsule: Option<&Capsule>,
        identity: &Identity,
    ) -> Vec<u8> {
        let waybill = Waybill {
            origin: identity.server_name.clone(),
            destination: self.outgoing.destination.clone(),
            stream: stream.to_owned(),
            seq: place.seq,
            content_sha256: hex(self.content.sha256()),
            capsule_sha256: capsule.map(|capsule| hex(capsule.sha256())),
            deposited_at: place.first_at,
        };
        waybill.signed(&identity.key)
    }

    /// The request to the destination itself: the homeserver's own, with the waybill and the delivery's id as headers.
    pub(crate) fn direct_request(&self, waybill: Option<&[u8]>, id: &RequestId) -> Request<Body> {
        let mut request = Request::new(full(self.outgoing.body.clone()));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = crate::outbound::uri_of(&self.outgoing.target);
        *request.headers_mut() = self.outgoing.headers.clone();
        if let Some(waybill) = waybill {
            let waybill = HeaderValue::from_str(&Waybill::to_header(waybill))
                .expect("base64 is printable ASCII");
            request.headers_mut().insert(WAYBILL_HEADER, waybill);
        }
        request.headers_mut().insert(REQUEST_ID_HEADER, header_of(id));
        request
    }

    /// The body of a deposit, in canonical form.
    pub(super) fn deposit_body(
        &self,
        waybill: Option<&[u8]>,
        beside: &Beside<'_>,
        errand: Errand,
    ) -> Result<Bytes, NoDeposit> {
        let Beside { keys, capsule, record, id } = beside;
        let proof = self.proof.as_ref().map_err(|reason| NoDeposit::Proof(reason.clone()))?;
        let mut extras = match waybill {
            Some(waybill) => Extras::new(proof, waybill, keys.raw())?,
            None => Extras::without_waybill(proof, keys.raw())?,
        };
        if let Some(capsule) = capsule {
            extras = extras.with_capsule(capsule)?;
        }
        if let Some(record) = record {
            extras = extras.with_record(record)?;
        }
        extras = extras.with_request_id(id)?;
        if errand == Errand::Deliver {
            extras = extras.asking_onward()?;
        }
        let body = self.content.to_deposit_body(&extras)?;
        Ok(match canonicalise(&body)? {
            std::borrow::Cow::Borrowed(_) => body.clone(),
            std::borrow::Cow::Owned(rebuilt) => rebuilt.into(),
        })
    }
}

/// What a relay is asked to do with mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// To keep it until its recipient calls.
    Keep,
    /// To call the recipient.
    Deliver,
}

/// A delivery's id as the value of [`REQUEST_ID_HEADER`].
pub(super) fn header_of(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).expect("its characters are printable ASCII")
}

/// Why a transaction can't be left with a relay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDeposit {
    /// It is of a kind that only goes directly.
    #[error(transparent)]
    Proof(#[from] NotRelayable),
    /// Its content and the members beside it make no deposit.
    #[error(transparent)]
    Body(#[from] DepositBodyError),
    /// They have no canonical form.
    #[error(transparent)]
    Json(#[from] CanonicalJsonError),
}

/// The homeserver's own signature as a proof, checked as the recipient will check it.
fn proof(
    outgoing: &Outgoing,
    content: &Content,
    identity: &Identity,
) -> Result<Proof, NotRelayable> {
    let (proof, claim) = fitting_proof(outgoing, content)?;
    claim.verify(content, &identity.key.public_key())?;
    Ok(proof)
}

/// The signature as a proof of this content for this destination, by whatever key.
fn fitting_proof(
    outgoing: &Outgoing,
    content: &Content,
) -> Result<(Proof, ProofClaim), NotRelayable> {
    let own_members = members(content.canonical()).unwrap_or_default();
    if own_members.iter().any(|member| member.name.starts_with(MEMBER_PREFIX)) {
        return Err(NotRelayable::OwnMembers);
    }
    let proof = Proof {
        uri: outgoing.target.as_str().to_owned(),
        authorization: outgoing.authorization.clone(),
    };
    let claim = proof.claim()?;
    claim.check_fit(&outgoing.destination, &outgoing.txn_id, content)?;
    Ok((proof, claim))
}
