//! `PUT /_matrix/federation/v1/send_relay/{txnId}/{userId}`: leave a transaction.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use restante_federation::ContentCoding;
use restante_federation_proto::{ErrorCode, UserId};
use restante_mailbox::Deposited;
use restante_relay_api::Receipt;

use crate::errors::{Refusal, json};
use crate::extract::SignedDeposit;
use crate::intake::{self, Address, Carrier, Taken};
use crate::state::RelayState;

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
    let carrier = Carrier { caller: deposit.caller, from: deposit.from };
    let Taken { deposited, receipt } =
        intake::deposit(&relay, &carrier, address, deposit.body).await?;
    match deposited {
        Deposited::Stored(_) | Deposited::Duplicate => {
            let signed = receipt.signed(&relay.identity.key);
            let mut answer = json(StatusCode::OK, Receipt::to_answer(&signed));
            // The next deposit may be compressed.
            ContentCoding::offer(answer.headers_mut());
            Ok(answer)
        }
        Deposited::Full(full) => Err(Refusal::full(full)),
    }
}
