//! The contract between relays and nodes: endpoints, limits, proof, waybill, capsule, collect, registration, relay
//! record, receipts.
//!
//! Types and rules alone; what carries them is elsewhere. The wire is described in ARCHITECTURE.md, "The wire".

mod capsule;
mod collect;
mod delivery_receipt;
mod deposit_body;
pub mod endpoints;
mod fullness;
mod hex;
mod invite_line;
mod left;
pub mod limits;
mod losses;
mod mail_digest;
mod proof;
mod receipt;
mod registration;
mod relay_record;
mod relay_txn;
mod request_id;
mod signatures;
mod waybill;

pub use capsule::{Capsule, CapsuleError};
pub use collect::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Queued, Told, WireEnvelope,
};
pub use delivery_receipt::{
    ConfirmedDelivery, ConfirmedOutcome, DELIVERIES_MAX, DELIVERY_RECEIPT_EDU, DeliveryReceipt,
    MissingNumbers, PDU_ERROR_BYTES_MAX, PduResult, RECEIPTS_BYTES_MAX,
};
pub use deposit_body::{Content, DepositBody, DepositBodyError, Extras};
pub use fullness::{FULL_MEMBER, Fullness};
pub use hex::{hex, parse_hex};
pub use invite_line::{InviteLine, InviteLineError};
pub use left::{LeftAnswer, LeftRequest, LeftState, LeftTransaction};
pub use losses::{Losses, OriginLosses};
pub use mail_digest::MailDigest;
pub use proof::{Proof, ProofClaim, ProofError};
pub use receipt::{Receipt, ReceiptError, Receipted};
pub use registration::{
    LeaveRequest, LeftMail, OutgoingGranted, RegistrationAnswer, RegistrationRequest, Senders,
};
pub use relay_record::{RecordedRelay, RelayRecord, RelayRecordError, VERSION_AHEAD_MAX};
pub use relay_txn::{RelayTxnRequest, RelayTxnResponse};
pub use request_id::{REQUEST_ID_HEADER, RequestId, RequestIdError};
pub use waybill::{Waybill, WaybillError};
