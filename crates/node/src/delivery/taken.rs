//! What is noted of mail that its destination took directly.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::Timestamp;

use super::capsules::Capsules;
use super::mail::Mail;
use crate::passed::Passed;
use crate::store::ledger::Ledger;
use crate::store::outbox::ErrorSummary;

/// Mail, and what came of it. Until it is noted the ledger does not know it, and a crash leaves it so: where no relay has it
/// and no copy is kept, nobody asks, and the destination has it all the same.
pub(super) struct Taken {
    pub(super) ledger: Ledger,
    pub(super) capsules: Capsules,
    pub(super) passed: Passed,
    pub(super) mail: Mail,
    /// Its number.
    pub(super) seq: u64,
    /// The events that the destination did not take, with what it said of each.
    pub(super) errors: BTreeMap<String, String>,
    pub(super) at: Timestamp,
}

/// The same, with the events that are now known to be at the destination.
pub(super) struct Prepared {
    taken: Taken,
    brought: BTreeSet<String>,
}

impl Taken {
    /// Reads what it brought; of a room that is met for the first time, the homeserver is asked.
    pub(super) async fn prepared(self) -> Prepared {
        let is_refused = |event_id: &str| self.errors.contains_key(event_id);
        let brought = self.capsules.brought(&self.mail, is_refused).await;
        Prepared { taken: self, brought }
    }
}

impl Prepared {
    /// Enters it in the ledger, and where the events are.
    pub(super) async fn note(self) {
        let Self { taken: Taken { ledger, passed, mail, seq, errors, at, .. }, brought } = self;
        let each = errors.iter().map(|(id, error)| (id.as_str(), error.as_str()));
        let summary = ErrorSummary::of(each);
        let destination = mail.destination();
        // Together they take one commit.
        let (entered, ()) = tokio::join!(
            ledger.delivered(destination.clone(), seq, summary, at),
            passed.note(destination, brought),
        );
        if let Err(error) = entered {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, txn_id = mail.txn_id(), "not entered in the ledger");
        }
    }
}
