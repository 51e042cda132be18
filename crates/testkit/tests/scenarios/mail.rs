//! Looks into the JSON of transactions.

use restante_relay_api::WireEnvelope;
use serde_json::Value;

/// The bodies of the messages in a transaction.
pub(crate) fn texts(transaction: &Value) -> impl Iterator<Item = &str> {
    let pdus = transaction["pdus"].as_array().into_iter().flatten();
    pdus.filter_map(|pdu| pdu["content"]["body"].as_str())
}

/// Whether the transaction has a message with this body.
pub(crate) fn has_text(transaction: &Value, text: &str) -> bool {
    texts(transaction).any(|found| found == text)
}

/// Whether the transaction has a to-device message of the type `kind`.
pub(crate) fn has_to_device(transaction: &Value, kind: &str) -> bool {
    let mut edus = transaction["edus"].as_array().into_iter().flatten();
    edus.any(|edu| edu["content"]["type"] == kind)
}

/// The messages in all these transactions.
pub(crate) fn messages(envelopes: &[WireEnvelope]) -> Vec<Value> {
    let pdus = envelopes.iter().flat_map(|envelope| listed(&transaction(envelope), "pdus"));
    pdus.filter(|pdu| pdu["type"] == "m.room.message").collect()
}

/// The encrypted messages in all these transactions.
pub(crate) fn encrypted(envelopes: &[WireEnvelope]) -> Vec<Value> {
    let pdus = envelopes.iter().flat_map(|envelope| listed(&transaction(envelope), "pdus"));
    pdus.filter(|pdu| pdu["type"] == "m.room.encrypted").collect()
}

/// The to-device messages of the type `kind` in all these transactions.
pub(crate) fn to_device(envelopes: &[WireEnvelope], kind: &str) -> Vec<Value> {
    let edus = envelopes.iter().flat_map(|envelope| listed(&transaction(envelope), "edus"));
    edus.filter(|edu| edu["content"]["type"] == kind).collect()
}

/// The id of the transaction that holds a to-device message of the type `kind`.
pub(crate) fn to_device_txn_id(envelopes: &[WireEnvelope], kind: &str) -> String {
    let mut envelopes = envelopes.iter();
    let found = envelopes.find(|envelope| has_to_device(&transaction(envelope), kind));
    found.expect("one of them holds it").txn_id.clone()
}

fn transaction(envelope: &WireEnvelope) -> Value {
    serde_json::from_slice(&envelope.content).expect("a transaction is JSON")
}

fn listed(transaction: &Value, list: &str) -> Vec<Value> {
    transaction[list].as_array().cloned().unwrap_or_default()
}
