//! Looks into the JSON of transactions.

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
