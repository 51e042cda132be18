//! The contract between relays and nodes: endpoints, limits, proof, waybill, capsule, collect.
//!
//! Types and rules alone; what carries them is elsewhere. The wire is described in ARCHITECTURE.md, "The wire".

mod capsule;
mod collect;
mod deposit_body;
pub mod endpoints;
pub mod limits;
mod proof;
mod relay_txn;
mod waybill;

pub use capsule::{Capsule, CapsuleError};
pub use collect::{CollectAcknowledgement, CollectRequest, CollectResponse, Queued, WireEnvelope};
pub use deposit_body::{Content, DepositBody, DepositBodyError, Extras};
pub use proof::{Proof, ProofClaim, ProofError};
pub use relay_txn::{RelayTxnRequest, RelayTxnResponse};
pub use waybill::{Waybill, WaybillError, hex};
