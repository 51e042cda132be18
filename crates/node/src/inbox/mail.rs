//! An envelope as it arrives, and what is known of it.

use bytes::Bytes;
use restante_federation_proto::Timestamp;
use restante_relay_api::{DeliveryReceipt, RequestId};

use super::load::{Class, Weight};
use crate::store::seen::TransactionKey;

/// The source of mail that no relay gave.
pub(crate) const DIRECT: &str = "direct";

/// What is known of mail when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its origin is proven: it waits for delivery.
    Waiting,
    /// Its origin is proven, but it can't be delivered.
    Parked(String),
    /// It came without a proof: its events wait to be delivered on their own.
    Proofless,
    /// No believed key says whether it is its origin's.
    Unverified(String),
    /// It is not its origin's, or was altered.
    Forged(String),
    /// Its origin is proven, and tells this node what became of our mail; the homeserver has no part in it.
    Receipts(Vec<DeliveryReceipt>),
}

/// A place in a stream, by a verified waybill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// The stream.
    pub(crate) stream: String,
    /// The number.
    pub(crate) seq: u64,
    /// When the origin's node first sent or left it.
    pub(crate) deposited_at: Timestamp,
}

/// An envelope as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    /// What tells it from others.
    pub(crate) key: TransactionKey,
    /// The transaction.
    pub(crate) content: Bytes,
    /// The proof: target and authorization.
    pub(crate) proof: Option<(String, String)>,
    /// The place.
    pub(crate) place: Option<StreamPlace>,
    /// The members that came along, while they are not judged; then the capsule among them, if the origin's node vouches
    /// for it.
    pub(crate) extras: Bytes,
    /// The relay that gave it, or `direct`.
    pub(crate) source: String,
    /// The id by which its sender's logs name it.
    pub(crate) request_id: Option<RequestId>,
    /// What is known of it.
    pub(crate) standing: Standing,
}

impl Mail {
    /// What it takes of the inbox, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.content.len() + self.extras.len()) as u64
    }

    /// Its state in the schema, and the reason.
    pub(crate) fn state(&self) -> (&'static str, Option<&str>) {
        match &self.standing {
            Standing::Waiting | Standing::Proofless | Standing::Receipts(_) => ("waiting", None),
            Standing::Parked(reason) => ("parked", Some(reason)),
            Standing::Unverified(reason) => ("unverified", Some(reason)),
            Standing::Forged(reason) => ("forged", Some(reason)),
        }
    }

    /// Whether a relay gave it.
    pub(crate) fn is_relayed(&self) -> bool {
        self.source != DIRECT
    }

    /// Whether its origin is proven.
    pub(crate) fn is_proven(&self) -> bool {
        matches!(self.standing, Standing::Waiting | Standing::Parked(_))
    }

    /// The share of the inbox that it takes; forged envelopes take none, as the oldest of them make room, nor do receipts,
    /// which do not stay.
    pub(crate) fn class(&self) -> Option<Class> {
        match self.standing {
            Standing::Waiting | Standing::Parked(_) => Some(Class::Proven),
            Standing::Proofless | Standing::Unverified(_) => Some(Class::Unproven),
            Standing::Forged(_) | Standing::Receipts(_) => None,
        }
    }

    /// How much of its share.
    pub(crate) fn weight(&self) -> Weight {
        Weight::of(self.bytes())
    }
}
