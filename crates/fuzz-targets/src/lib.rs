//! What must hold for any input: one plain function per decoder, for the fuzzer and for ordinary tests.
//!
//! Each function takes bytes that a stranger chose and asserts what the decoder promises: not only that it does not
//! panic, but that what it accepts it can write and read again, that it agrees with a reading of the specification
//! that shares no code with it (`reference`), and that its limits hold. `cargo xtask fuzz` searches for inputs that
//! break a promise; `corpus/` holds what it has found worth keeping, and the tests replay all of it.

mod capsule;
mod collect;
mod config;
mod deposit_body;
mod events;
mod json;
mod key_documents;
mod keys;
mod left;
mod names;
mod notary;
mod proof;
mod receipt;
mod reference;
mod relay_record;
mod requests;
mod signed_json;
mod signer;
mod waybill;

/// A property of one decoder.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its corpus, and on the command line.
    pub name: &'static str,
    /// Panics if the property does not hold for these bytes.
    pub check: fn(&[u8]),
}

const fn target(name: &'static str, check: fn(&[u8])) -> Target {
    Target { name, check }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("base_url", names::base_url),
    target("canonical_json", json::canonical_json),
    target("capsule", capsule::capsule),
    target("collect_request", collect::request),
    target("collect_response", collect::response),
    target("config", config::config),
    target("deposit_body", deposit_body::deposit_body),
    target("event_id", events::event_id),
    target("event_signature", events::event_signature),
    target("json_members", json::json_members),
    target("key_document", key_documents::key_document),
    target("left_request", left::request),
    target("notary_response", notary::notary_response),
    target("path_segment", requests::path_segment),
    target("proof", proof::proof),
    target("receipt", receipt::receipt),
    target("relay_record", relay_record::relay_record),
    target("relay_txn", collect::relay_txn),
    target("request", requests::request),
    target("server_name", names::server_name),
    target("signed_json", signed_json::signed_json),
    target("signing_key_file", keys::signing_key_file),
    target("user_id", names::user_id),
    target("waybill", waybill::waybill),
    target("waybill_header", waybill::waybill_header),
    target("x_matrix", requests::x_matrix),
    target("x_matrix_headers", requests::x_matrix_headers),
];

/// The target `name`.
pub fn target_named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The text that `bytes` are; decoders of text are never called with anything else.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
