//! `POST /_matrix/federation/unstable/org.restante/left`: an origin asks what became of the mail that it left here, and
//! takes back what need not be delivered onward any more.
//!
//! Whatever is named is looked up as mail of the caller's, so that the answer tells of nobody else's mail, and of no mailbox
//! more than what the caller left in it.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, ServerName};
use restante_mailbox::{MailName, Whereabouts, Withdrawal};
use restante_relay_api::limits::LEFT_MAX;
use restante_relay_api::{LeftAnswer, LeftRequest, LeftState, LeftTransaction};

use crate::errors::{Refusal, json};
use crate::extract::{SignedQuestion, object};
use crate::handlers::collect::content_hash;
use crate::signed_at;
use crate::state::RelayState;

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    question: SignedQuestion,
) -> Result<Response, Refusal> {
    let caller = question.caller.server_name();
    let request: LeftRequest = object(&question.body)?;
    if !request.fits() {
        let text = format!("At most {LEFT_MAX} transactions at once");
        return Err(Refusal::bad(ErrorCode::InvalidParam, text));
    }
    let asked = mail_of(caller, &request.ask)?;
    let withdrawn = mail_of(caller, &request.withdraw)?;
    let now = relay.clock.now();
    signed_at::check(request.signed_at, now)?;
    withdraw(&relay, caller, withdrawn).await?;
    let found = relay.stores.accounts.whereabouts(&asked, now).await?;
    let answer = LeftAnswer { states: found.into_iter().map(state).collect() };
    let body = serde_json::to_vec(&answer).expect("a list of words is JSON");
    Ok(json(StatusCode::OK, body))
}

/// Takes back mail of `caller`'s. A call about it that is under way goes on: its recipient takes a transaction once.
async fn withdraw(
    relay: &RelayState,
    caller: &ServerName,
    mail: Vec<(ServerName, MailName)>,
) -> Result<(), Refusal> {
    if mail.is_empty() {
        return Ok(());
    }
    let withdrawal = |(recipient, name): (ServerName, MailName)| {
        let MailName { txn_id, content_hash, .. } = name;
        Withdrawal { recipient, txn_id, content_hash }
    };
    let withdrawals: Vec<_> = mail.into_iter().map(withdrawal).collect();
    let withdrawn = relay.stores.onward.withdraw(caller, &withdrawals).await?;
    tracing::info!(origin = %caller, withdrawn, asked = withdrawals.len(), "taken back by its origin");
    Ok(())
}

/// The transactions, as mail of `caller`, each with its recipient.
fn mail_of(
    caller: &ServerName,
    named: &[LeftTransaction],
) -> Result<Vec<(ServerName, MailName)>, Refusal> {
    let mail = |LeftTransaction { destination, txn_id, content_sha256 }: &LeftTransaction| {
        let content_hash = content_hash(content_sha256)?;
        let name = MailName { origin: caller.clone(), txn_id: txn_id.clone(), content_hash };
        Ok((destination.clone(), name))
    };
    named.iter().map(mail).collect()
}

fn state(whereabouts: Whereabouts) -> LeftState {
    match whereabouts {
        Whereabouts::Held => LeftState::Held,
        Whereabouts::Acknowledged => LeftState::Gone,
        Whereabouts::Unknown => LeftState::Unknown,
    }
}
