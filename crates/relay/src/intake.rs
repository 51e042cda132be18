//! Takes a deposit in: whose it is, whether its proof holds, whether it is of this time, wanted, and has room.
//!
//! What an unknown, a closed and a forbidden mailbox cost is the same: every check before admission is made for each.

mod storing;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use restante_federation::{Freshness, KeyLookupError, VerifiedOrigin};
use restante_federation_proto::{ErrorCode, KeyDocument, MatrixError, ServerName, Timestamp};
use restante_mailbox::{
    ContentHash, Deposit, Deposited, EnvelopeAge, Known, MailboxLimits, Onward, Quotas,
    envelope_age,
};
use restante_relay_api::limits::TXN_ID_BYTES_MAX;
use restante_relay_api::{Content, DepositBody, DepositBodyError, Extras, Proof, Receipt, hex};

use crate::admission::{Admission, MailboxKind, OnwardAdmission};
use crate::callers::CameFrom;
use crate::disk::Room;
use crate::errors::Refusal;
use crate::extract::admit_newcomer;
use crate::lifetime::{self, Worth};
use crate::rules::{OnwardRules, Rules};
use crate::state::RelayState;

/// Where a deposit goes.
pub(crate) struct Address {
    pub(crate) recipient: ServerName,
    pub(crate) txn_id: String,
}

/// Who brings a deposit, and from where.
pub(crate) struct Carrier {
    pub(crate) caller: VerifiedOrigin,
    pub(crate) from: CameFrom,
}

/// What became of a deposit.
pub(crate) struct Taken {
    pub(crate) deposited: Deposited,
    /// The relay's word that it holds it: of mail that was there before, since when and until when that is held. What its
    /// recipient has is not held.
    pub(crate) receipt: Option<Receipt>,
}

/// No room at all.
const NO_ROOM: MailboxLimits = MailboxLimits { envelopes_max: 0, bytes_max: 0 };

/// Checks a deposit and stores it; `Ok` only when it is durable.
pub(crate) async fn deposit(
    relay: &RelayState,
    carrier: &Carrier,
    address: Address,
    body: Bytes,
) -> Result<Taken, Refusal> {
    let rules = relay.rules();
    if address.txn_id.is_empty() || address.txn_id.len() > TXN_ID_BYTES_MAX {
        let text = format!("A transaction id has 1 to {TXN_ID_BYTES_MAX} bytes");
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    if address.recipient == *relay.server_name() {
        let text = "This server is a relay: it has no users, and no mail of its own";
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    let DepositBody { content, extras } = DepositBody::parse(body).map_err(bad_body)?;
    let wants_onward = extras.onward == Some(true);
    let extras = extras.without_onward().map_err(bad_body)?;
    let signed_at = check_age(rules.age, relay.clock.now(), &content)?;
    let (origin, content) = match &extras.proof {
        Some(proof) => {
            let origin =
                proven_origin(relay, carrier, proof, &address, &content, signed_at).await?;
            (origin, content)
        }
        None => own_mail(&carrier.caller, content)?,
    };
    let admitted = if wants_onward {
        check_outgoing(relay, &rules, carrier, &origin, &extras).await?;
        admitted_onward(relay, &rules, &address.recipient, &origin).await?
    } else {
        admitted(relay, &rules, &address.recipient, &origin).await?
    };
    learn_keys(relay, &extras).await;
    let now = relay.clock.now();
    let deposit = Deposit {
        recipient: address.recipient,
        origin,
        txn_id: address.txn_id,
        content_hash: ContentHash(*content.sha256()),
        content: content.raw().clone(),
        expires_at: lifetime::expires_at(
            now,
            worth(&content, &extras),
            rules.age.time_to_live,
            admitted.time_to_live,
        ),
        members: extras.json,
        deposited_at: now,
        onward: admitted.onward,
    };
    let receipt = receipt(relay, &deposit);
    let quotas = quotas(relay, &rules, &admitted);
    let deposited = storing::store(relay, deposit, quotas).await?;
    Ok(Taken { deposited, receipt: word_for(deposited, receipt) })
}

/// The receipt for what became of a deposit, from that for the deposit if it is stored.
fn word_for(deposited: Deposited, stored: Receipt) -> Option<Receipt> {
    match deposited {
        Deposited::Stored(_) => Some(stored),
        Deposited::Duplicate(Known::Held { since, until }) => {
            Some(Receipt { received_at: since, expires_at: until, ..stored })
        }
        Deposited::Duplicate(Known::Acknowledged) | Deposited::Full(_) => None,
    }
}

/// For a deposit that is stored.
fn receipt(relay: &RelayState, deposit: &Deposit) -> Receipt {
    Receipt {
        relay: relay.server_name().clone(),
        origin: deposit.origin.clone(),
        destination: deposit.recipient.clone(),
        txn_id: deposit.txn_id.clone(),
        content_sha256: hex(&deposit.content_hash.0),
        received_at: deposit.deposited_at,
        expires_at: deposit.expires_at,
    }
}

/// How mail is taken.
struct Terms {
    /// How long its recipient wants it to be kept.
    time_to_live: Option<Duration>,
    mailbox: MailboxKind,
    onward: Onward,
}

/// Nobody but the origin itself, which is registered for it, has its mail delivered onward, and nothing but what it signed.
async fn check_outgoing(
    relay: &RelayState,
    rules: &Rules,
    carrier: &Carrier,
    origin: &ServerName,
    extras: &Extras,
) -> Result<(), Refusal> {
    if extras.proof.is_none() {
        let text = "Mail to be delivered onward needs its origin's proof";
        return Err(Refusal::bad(ErrorCode::BadJson, text));
    }
    let terms = relay.admission.registrations.terms(origin).await?;
    let is_outgoing = rules.onward.served.serves(origin, terms.as_deref());
    let is_its_own = carrier.caller.server_name() == origin;
    if is_its_own && is_outgoing {
        return Ok(());
    }
    tracing::info!(%origin, caller = %carrier.caller.server_name(), is_outgoing, "mail is not delivered onward");
    Err(Refusal::not_outgoing())
}

/// Where mail that may be delivered onward goes: to its recipient's own mailbox if that is registered.
async fn admitted_onward(
    relay: &RelayState,
    rules: &Rules,
    recipient: &ServerName,
    origin: &ServerName,
) -> Result<Terms, Refusal> {
    let terms = relay.admission.registrations.terms(recipient).await?;
    match rules.served.admit_onward(recipient, origin, terms.as_deref()) {
        OnwardAdmission::ForItsOwner(admission) => welcome((recipient, origin), admission),
        OnwardAdmission::Onward => {
            let mailbox = MailboxKind::MadeUp;
            Ok(Terms { time_to_live: None, mailbox, onward: Onward::Wanted })
        }
    }
}

/// Whether the mailbox is served here and takes mail of `origin`; how long its owner wants mail to be kept.
async fn admitted(
    relay: &RelayState,
    rules: &Rules,
    recipient: &ServerName,
    origin: &ServerName,
) -> Result<Terms, Refusal> {
    let terms = relay.admission.registrations.terms(recipient).await?;
    let admission = rules.served.admit(recipient, origin, terms.as_deref());
    welcome((recipient, origin), admission)
}

fn welcome(
    (recipient, origin): (&ServerName, &ServerName),
    admission: Admission,
) -> Result<Terms, Refusal> {
    match admission {
        Admission::Refused(reason) => {
            tracing::info!(mailbox = %recipient, %origin, reason = reason.as_str(), "mail is unwelcome");
            Err(Refusal::unwelcome())
        }
        Admission::Admitted { time_to_live, mailbox } => {
            Ok(Terms { time_to_live, mailbox, onward: Onward::No })
        }
    }
}

/// A capsule is never of the moment, whatever it goes with.
fn worth(content: &Content, extras: &Extras) -> Worth {
    match extras.capsule {
        Some(_) => Worth::Lasting,
        None => lifetime::worth(content.canonical()),
    }
}

/// While the disk is low the relay counts as full, so that the store tells duplicates and counts what is turned away.
fn quotas(relay: &RelayState, rules: &Rules, terms: &Terms) -> Quotas {
    let mailboxes_max = match terms.mailbox {
        MailboxKind::Expected => u64::MAX,
        MailboxKind::MadeUp => rules.storage.mailboxes_max,
    };
    let quotas = Quotas { mailboxes_max, ..rules.quotas };
    let quotas = match terms.onward {
        Onward::No => quotas,
        Onward::Wanted | Onward::Refused => {
            let OnwardRules { limits, destination, .. } = &rules.onward;
            Quotas { origin: *destination, onward: *limits, ..quotas }
        }
    };
    match relay.admission.disk.room(rules.storage.free_disk_bytes_min) {
        Room::Enough => quotas,
        Room::Low => Quotas { relay: NO_ROOM, ..quotas },
    }
}

/// The proof's origin; whoever brought it needs no trust.
async fn proven_origin(
    relay: &RelayState,
    carrier: &Carrier,
    proof: &Proof,
    address: &Address,
    content: &Content,
    signed_at: Option<Timestamp>,
) -> Result<ServerName, Refusal> {
    let signed_at = signed_at.ok_or_else(|| {
        // Without a time a proof could be replayed for ever; a proofless deposit is bounded by its own request.
        Refusal::bad(ErrorCode::BadJson, "The transaction has no origin_server_ts")
    })?;
    let bad = |error| bad_body(DepositBodyError::Proof(error));
    let claim = proof.claim().map_err(bad)?;
    claim.check_fit(&address.recipient, &address.txn_id, content).map_err(bad)?;
    admit_newcomer(relay, carrier.from, claim.origin()).await?;
    let key = relay.keys.key(claim.origin(), claim.key_id(), Freshness::SignedAt(signed_at)).await;
    let key = key.map_err(|error| no_key(&error))?;
    claim.verify(content, &key).map_err(bad)?;
    Ok(claim.origin().clone())
}

/// Without a proof the mail is the caller's own.
fn own_mail(caller: &VerifiedOrigin, content: Content) -> Result<(ServerName, Content), Refusal> {
    let caller = caller.server_name();
    if content.origin().is_some_and(|origin| origin != caller) {
        let text =
            "The transaction names another origin than its sender, and carries no proof of it";
        return Err(Refusal::bad(ErrorCode::BadJson, text));
    }
    let content = content.with_origin(caller).map_err(bad_body)?;
    Ok((caller.clone(), content))
}

/// When the transaction was signed, by its own word, which is within bounds.
fn check_age(
    bounds: EnvelopeAge,
    now: Timestamp,
    content: &Content,
) -> Result<Option<Timestamp>, Refusal> {
    let Some(sent_at) = content.origin_server_ts() else { return Ok(None) };
    envelope_age(sent_at, bounds, now)
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, error.to_string()))?;
    // The check leaves only times near the clock's, and a part of a millisecond does not matter.
    Ok(Some(Timestamp::from_millis(sent_at as u64)))
}

/// A document that comes with mail may prolong what is believed, never begin it; and mail is taken without it.
async fn learn_keys(relay: &RelayState, extras: &Extras) {
    if let Some(document) = extras.keys.clone().and_then(|json| KeyDocument::parse(json).ok()) {
        relay.keys.offer(&document).await;
    }
}

fn bad_body(error: DepositBodyError) -> Refusal {
    let code = match error {
        DepositBodyError::Json(_) => ErrorCode::NotJson,
        _ => ErrorCode::BadJson,
    };
    Refusal::bad(code, error.to_string())
}

fn no_key(error: &KeyLookupError) -> Refusal {
    match error {
        KeyLookupError::NoSuchKey { .. } => {
            Refusal::bad(ErrorCode::BadJson, format!("The proof does not verify: {error}"))
        }
        KeyLookupError::Unreachable { retry_after, .. } => {
            let text = format!("The proof can't be checked now: {error}");
            let unavailable = StatusCode::SERVICE_UNAVAILABLE;
            Refusal(
                MatrixError::new(unavailable, ErrorCode::Unknown, text).retry_after(*retry_after),
            )
        }
    }
}
