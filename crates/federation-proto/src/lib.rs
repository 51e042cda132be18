//! Being a Matrix server, without IO: names, canonical JSON, signatures, X-Matrix, key documents, event ids.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: the time
//! and the generator are arguments. `Clock` and `Dice` are the seams by which shells get them.

mod authorization_parameters;
mod canonical_json;
mod dice;
mod event_id;
mod event_signature;
mod evidence;
mod json_members;
mod json_scanner;
mod json_survey;
mod key_document;
mod keys;
mod matrix_error;
mod names;
mod notary_response;
mod path;
mod redaction;
mod server_glob;
mod signable_request;
mod signed_json;
mod timestamp;
mod trusted_time;
mod x_matrix;

pub use canonical_json::{CanonicalJsonError, JSON_DEPTH_MAX, canonicalise};
pub use dice::{Dice, SystemDice};
pub use event_id::{EventIdError, RoomVersion, event_id};
pub use event_signature::{EventSignatureError, verify_event_signature};
pub use evidence::{BelievedDocument, Evidence, Replacement, TRUST_MAX, replacement};
pub use json_members::{Member, members};
pub use key_document::{
    KEY_DOCUMENT_BYTES_MAX, KeyDocument, KeyDocumentError, VERIFY_KEYS_MAX, mint, mint_signed_by,
};
pub use keys::{BadSignature, KeyError, KeyId, PublicKey, Signature, SigningKey};
pub use matrix_error::{ErrorCode, MatrixError};
pub use names::{NameError, ServerName, UserId};
pub use notary_response::{NOTARY_DOCUMENTS_MAX, NotaryResponse};
pub use path::{escape_path_segment, unescape_path_segment};
pub use server_glob::{ServerGlob, ServerGlobError, glob_matches};
pub use signable_request::{RequestTarget, RequestTargetError, SignableRequest};
pub use signed_json::{SignedJsonError, sign_json, to_signed_json, verify_json};
pub use timestamp::{Clock, ManualClock, SystemClock, Timestamp};
pub use trusted_time::{ClockChange, TrustedTime};
pub use x_matrix::{XMatrix, XMatrixError};
