//! `PUT /_matrix/federation/v1/send_relay/{txnId}/{userId}`: leave a transaction.

use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation_proto::{ErrorCode, MatrixError, UserId};
use restante_mailbox::{Deposited, Full};

use crate::errors::{Refusal, json};
use crate::extract::SignedDeposit;
use crate::intake::{self, Address};
use crate::state::RelayState;

/// When to try a full mailbox again: its owner empties it when it comes online.
const FULL_RETRY: Duration = Duration::from_secs(600);

pub(crate) async fn handle(
    State(relay): State<RelayState>,
    path: Result<Path<(String, String)>, PathRejection>,
    deposit: SignedDeposit,
) -> Result<Response, Refusal> {
    let Path((txn_id, user_id)) = path?;
    let user_id: UserId = user_id
        .parse()
        .map_err(|error| Refusal::bad(ErrorCode::InvalidParam, format!("{error}")))?;
    let address = Address { recipient: user_id.server_name().clone(), txn_id };
    match intake::deposit(&relay, &deposit.caller, address, deposit.body).await? {
        Deposited::Stored(_) | Deposited::Duplicate => Ok(json(StatusCode::OK, "{}")),
        Deposited::Full(full) => {
            let text = match full {
                Full::Mailbox => "The mailbox is full; nothing was stored",
                Full::Share => "Your share of the mailbox is full; nothing was stored",
                Full::Relay => "The relay is full; nothing was stored",
            };
            let full =
                MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, text);
            Err(full.retry_after(FULL_RETRY).into())
        }
    }
}
