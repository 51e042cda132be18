//! Stores a deposit, wakes whoever waits for it, and says what became of it.

use restante_federation_proto::ServerName;
use restante_mailbox::{Deposit, Deposited, Full, Onward, Quotas, StoreError};
use restante_relay_api::RequestId;
use tracing::Instrument as _;

use crate::errors::Refusal;
use crate::request_log::delivery_id;
use crate::state::RelayState;

/// Stores and announces in a task of its own: a write once begun ends, whether or not the caller hangs up
/// meanwhile, and whoever waits for the mail must hear of it all the same.
pub(super) async fn store(
    relay: &RelayState,
    deposit: Deposit,
    quotas: Quotas,
) -> Result<Deposited, Refusal> {
    let line = DepositLine::of(&deposit);
    let state = relay.clone();
    let storing = async move {
        let outcome = state.store.deposit(deposit, quotas).await;
        if let Ok(outcome) = &outcome {
            line.log(*outcome);
        }
        if let Ok(Deposited::Stored(_) | Deposited::Duplicate(_)) = outcome
            && line.onward == Onward::Wanted
        {
            state.onward.left(&line.recipient);
        }
        if let Ok(Deposited::Stored(_)) = outcome {
            state.arrivals.announce(&line.recipient);
        }
        outcome
    };
    let storing = relay.deposits.spawn(storing.in_current_span());
    let outcome = storing.await.map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(outcome?)
}

/// What is logged of a deposit.
struct DepositLine {
    recipient: ServerName,
    origin: ServerName,
    bytes: u64,
    onward: Onward,
    delivery_id: Option<RequestId>,
}

impl DepositLine {
    fn of(deposit: &Deposit) -> Self {
        Self {
            recipient: deposit.recipient.clone(),
            origin: deposit.origin.clone(),
            bytes: deposit.bytes(),
            onward: deposit.onward,
            delivery_id: delivery_id(&deposit.members),
        }
    }

    fn log(&self, outcome: Deposited) {
        let (entry, outcome) = match outcome {
            Deposited::Stored(id) => (Some(id.get()), "stored"),
            Deposited::Duplicate(_) => (None, "duplicate"),
            Deposited::Full(Full::Mailbox) => (None, "mailbox_full"),
            Deposited::Full(Full::Share) => (None, "share_full"),
            Deposited::Full(Full::Relay) => (None, "relay_full"),
        };
        tracing::info!(
            mailbox = %self.recipient,
            origin = %self.origin,
            envelope.id = entry,
            envelope.bytes = self.bytes,
            onward = self.onward == Onward::Wanted,
            delivery.id = self.delivery_id.as_ref().map(RequestId::as_str),
            outcome,
            "deposit"
        );
    }
}
