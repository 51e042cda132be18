//! What the admin API's answers are made of. Times are milliseconds since 1970.

use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    Condition, EnvelopeLine, Hold, Loss, LossKind, MailboxSummary, Onward, Outgoing, Registered,
    Registration, Share,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// One mailbox in the list.
#[derive(Serialize, ToSchema)]
pub(super) struct MailboxLine {
    #[schema(value_type = String)]
    pub(super) recipient: ServerName,
    /// Envelopes that wait; those set aside are not counted.
    envelopes: u64,
    /// Their bytes.
    bytes: u64,
    #[schema(value_type = Option<u64>)]
    oldest_at: Option<Timestamp>,
    /// Envelopes that were found damaged and set aside.
    quarantined: u64,
    /// Whether the operator holds it.
    held: bool,
    registered: bool,
    acknowledged_total: u64,
    /// Envelopes that the recipient's homeserver took from this relay's own call.
    delivered_total: u64,
    /// Envelopes that were left with a relay of the recipient's own.
    passed_on_total: u64,
    /// Envelopes for onward delivery that their origins took back.
    withdrawn_total: u64,
    expired_total: u64,
    dropped_total: u64,
}

/// What a server asked for when it registered.
#[derive(Serialize, ToSchema)]
pub(super) struct RegistrationShown {
    /// Its relay record, as it signed it.
    #[schema(value_type = Object)]
    record: Option<Box<RawValue>>,
    senders: SendersShown,
    time_to_live_ms: Option<u64>,
    #[schema(value_type = u64)]
    registered_at: Timestamp,
    /// Whether its own mail is delivered onward.
    outgoing: bool,
}

/// Patterns of server names.
#[derive(Serialize, ToSchema)]
struct SendersShown {
    /// Those who may leave mail; `null` is anyone.
    allow: Option<Vec<String>>,
    /// Those who may not, even if allowed.
    block: Vec<String>,
}

/// What one origin has in a mailbox.
#[derive(Serialize, ToSchema)]
pub(super) struct ShareShown {
    #[schema(value_type = String)]
    origin: ServerName,
    envelopes: u64,
    bytes: u64,
}

/// What the recipient never got of one origin, for one reason.
#[derive(Serialize, ToSchema)]
pub(super) struct LossShown {
    /// `mailbox_full`, `share_full`, `relay_full`, `expired` or `dropped`.
    kind: &'static str,
    /// `null` sums up those who are too many to be named.
    #[schema(value_type = Option<String>)]
    origin: Option<ServerName>,
    count: u64,
    bytes: u64,
    #[schema(value_type = u64)]
    since: Timestamp,
    #[schema(value_type = u64)]
    until: Timestamp,
}

/// An envelope without its content.
#[derive(Serialize, ToSchema)]
pub(super) struct EnvelopeShown {
    pub(super) id: u64,
    origin: String,
    txn_id: String,
    #[schema(value_type = u64)]
    deposited_at: Timestamp,
    #[schema(value_type = u64)]
    expires_at: Timestamp,
    bytes: u64,
    quarantined: bool,
    /// `no`, `wanted`: the relay delivers it itself, or `refused`: its recipient refused it, and it waits to be collected.
    onward: &'static str,
}

impl From<MailboxSummary> for MailboxLine {
    fn from(summary: MailboxSummary) -> Self {
        Self {
            recipient: summary.recipient,
            envelopes: summary.depth.count,
            bytes: summary.depth.bytes,
            oldest_at: summary.depth.oldest_at,
            quarantined: summary.quarantined,
            held: summary.hold == Hold::Held,
            registered: summary.registered == Registered::Yes,
            acknowledged_total: summary.acknowledged_total,
            delivered_total: summary.delivered_total,
            passed_on_total: summary.passed_on_total,
            withdrawn_total: summary.withdrawn_total,
            expired_total: summary.expired_total,
            dropped_total: summary.dropped_total,
        }
    }
}

impl From<Registration> for RegistrationShown {
    fn from(registration: Registration) -> Self {
        let millis = |length: std::time::Duration| u64::try_from(length.as_millis());
        let senders = registration.senders;
        Self {
            record: serde_json::from_slice(&registration.record).ok(),
            senders: SendersShown { allow: senders.allow, block: senders.block },
            time_to_live_ms: registration.time_to_live.and_then(|length| millis(length).ok()),
            registered_at: registration.registered_at,
            outgoing: registration.outgoing == Outgoing::Yes,
        }
    }
}

impl From<Share> for ShareShown {
    fn from(share: Share) -> Self {
        Self { origin: share.origin, envelopes: share.envelopes, bytes: share.bytes }
    }
}

impl From<Loss> for LossShown {
    fn from(loss: Loss) -> Self {
        let kind = match loss.kind {
            LossKind::MailboxFull => "mailbox_full",
            LossKind::ShareFull => "share_full",
            LossKind::RelayFull => "relay_full",
            LossKind::Expired => "expired",
            LossKind::Dropped => "dropped",
        };
        let Loss { origin, count, bytes, since, until, .. } = loss;
        Self { kind, origin, count, bytes, since, until }
    }
}

/// The word for it in answers and exports.
pub(super) fn onward_word(onward: Onward) -> &'static str {
    match onward {
        Onward::No => "no",
        Onward::Wanted => "wanted",
        Onward::Refused => "refused",
    }
}

/// What an export says; what it does not say, as those of earlier relays, is not delivered onward.
pub(super) fn onward_of(word: Option<&str>) -> Option<Onward> {
    match word {
        None | Some("no") => Some(Onward::No),
        Some("wanted") => Some(Onward::Wanted),
        Some("refused") => Some(Onward::Refused),
        Some(_) => None,
    }
}

impl From<EnvelopeLine> for EnvelopeShown {
    fn from(line: EnvelopeLine) -> Self {
        Self {
            id: line.id.get(),
            origin: line.origin,
            txn_id: line.txn_id,
            deposited_at: line.deposited_at,
            expires_at: line.expires_at,
            bytes: line.bytes,
            quarantined: line.condition == Condition::Quarantined,
            onward: onward_word(line.onward),
        }
    }
}
