//! What was written, and what a node has promised to deliver.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What one homeserver's user wrote, by its text.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) messages: Vec<String>,
    pub(crate) to_device: Vec<String>,
}

/// What a homeserver has handed to its node, and what the node has answered 200.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    /// How many EDUs without an id each transaction has, which nobody but the transaction's own id tells from copies.
    nameless: BTreeMap<String, usize>,
    promised_transactions: BTreeSet<String>,
    promised_texts: BTreeSet<String>,
}

impl Handed {
    /// A transaction goes to the node.
    pub(crate) fn note_attempt(&self, txn_id: &str, transaction: &[u8]) {
        let Ok(transaction) = serde_json::from_slice::<Value>(transaction) else { return };
        let edus = transaction["edus"].as_array().into_iter().flatten();
        let nameless = edus.filter(|edu| is_nameless(edu)).count();
        self.notes().nameless.insert(txn_id.to_owned(), nameless);
    }

    /// The node has answered it 200.
    pub(crate) fn note_promise(&self, txn_id: &str, transaction: &[u8]) {
        let Ok(transaction) = serde_json::from_slice::<Value>(transaction) else { return };
        let mut notes = self.notes();
        notes.promised_transactions.insert(txn_id.to_owned());
        for pdu in transaction["pdus"].as_array().into_iter().flatten() {
            notes.promised_texts.extend(pdu["content"]["body"].as_str().map(str::to_owned));
        }
        for edu in transaction["edus"].as_array().into_iter().flatten() {
            notes.promised_texts.extend(to_device_text(&edu["content"]));
        }
    }

    /// The texts in what was answered 200.
    pub(crate) fn promised(&self) -> BTreeSet<String> {
        self.notes().promised_texts.clone()
    }

    /// How many EDUs without an id have to arrive, and how many may: one that got no answer may be handed over once more in
    /// another transaction.
    pub(crate) fn nameless(&self) -> RangeInclusive<usize> {
        let notes = self.notes();
        let promised = notes
            .nameless
            .iter()
            .filter(|(txn_id, _)| notes.promised_transactions.contains(*txn_id));
        promised.map(|(_, count)| count).sum()..=notes.nameless.values().sum()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_nameless(edu: &Value) -> bool {
    edu["edu_type"] == "m.typing"
}

/// The text of a message to devices.
pub(crate) fn to_device_text(content: &Value) -> Option<String> {
    let (_, devices) = content["messages"].as_object()?.iter().next()?;
    devices["*"]["text"].as_str().map(str::to_owned)
}
