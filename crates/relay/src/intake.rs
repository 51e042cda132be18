//! Decides what a deposit is worth: whose it is, whether its proof holds, whether it is of this time.

use restante_federation::{Freshness, KeyLookupError, VerifiedOrigin};
use restante_federation_proto::{ErrorCode, KeyDocument, MatrixError, ServerName, Timestamp};
use restante_mailbox::{ContentHash, Deposit, Deposited, StoreError, envelope_age};
use restante_relay_api::limits::TXN_ID_BYTES_MAX;
use restante_relay_api::{Content, DepositBody, DepositBodyError, Extras, Proof};

use bytes::Bytes;
use http::StatusCode;

use crate::errors::Refusal;
use crate::state::RelayState;

/// Where a deposit goes.
pub(crate) struct Address {
    pub(crate) recipient: ServerName,
    pub(crate) txn_id: String,
}

/// Checks a deposit and stores it; `Ok` only when it is durable.
pub(crate) async fn deposit(
    relay: &RelayState,
    caller: &VerifiedOrigin,
    address: Address,
    body: Bytes,
) -> Result<Deposited, Refusal> {
    if address.txn_id.is_empty() || address.txn_id.len() > TXN_ID_BYTES_MAX {
        let text = format!("A transaction id has 1 to {TXN_ID_BYTES_MAX} bytes");
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    if address.recipient == *relay.server_name() {
        let text = "This server is a relay: it has no users, and no mail of its own";
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    let DepositBody { content, extras } = DepositBody::parse(body).map_err(bad_body)?;
    let signed_at = check_age(relay, &content)?;
    let (origin, content) = match &extras.proof {
        Some(proof) => (proven_origin(relay, proof, &address, &content, signed_at).await?, content),
        None => own_mail(caller, content)?,
    };
    learn_keys(relay, &extras).await;
    let deposited_at = relay.clock.now();
    let deposit = Deposit {
        recipient: address.recipient,
        origin,
        txn_id: address.txn_id,
        content_hash: ContentHash(*content.sha256()),
        content: content.raw().clone(),
        members: extras.json,
        deposited_at,
        expires_at: deposited_at.after(relay.rules.age.time_to_live),
    };
    store(relay, deposit).await
}

/// Stores and announces in a task of its own: a write once begun ends, whether or not the caller hangs up
/// meanwhile, and whoever waits for the mail must hear of it all the same.
async fn store(relay: &RelayState, deposit: Deposit) -> Result<Deposited, Refusal> {
    let recipient = deposit.recipient.clone();
    let state = relay.clone();
    let storing = relay.deposits.spawn(async move {
        let outcome = state.store.deposit(deposit, state.rules.quotas).await;
        if let Ok(Deposited::Stored(_)) = outcome {
            state.arrivals.announce(&recipient);
        }
        outcome
    });
    let outcome = storing.await.map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(outcome?)
}

/// The proof's origin; whoever brought it needs no trust.
async fn proven_origin(
    relay: &RelayState,
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
fn check_age(relay: &RelayState, content: &Content) -> Result<Option<Timestamp>, Refusal> {
    let Some(sent_at) = content.origin_server_ts() else { return Ok(None) };
    envelope_age(sent_at, relay.rules.age, relay.clock.now())
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
