//! What is noted of mail that its destination took directly.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::Timestamp;

use super::capsules::Capsules;
use super::mail::Mail;
use crate::passed::Passed;
use crate::store::ledger::Ledger;
use crate::store::outbox::ErrorSummary;

/// Mail, and what came of it. Until it is noted the ledger does not know it, and a crash leaves it so: where no relay has it
/// and no copy is kept, the destination has it all the same, and only its relays are remembered for as long as the ledger.
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
        let brought = self.brought().await;
        Prepared { taken: self, brought }
    }

    /// Enters it in the ledger at once, and where the events are as soon as that is read.
    pub(super) async fn note(self) {
        let pass = async { self.passed.note(self.mail.destination(), self.brought().await).await };
        tokio::join!(self.enter(), pass);
    }

    async fn brought(&self) -> BTreeSet<String> {
        let is_refused = |event_id: &str| self.errors.contains_key(event_id);
        self.capsules.brought(&self.mail, is_refused).await
    }

    async fn enter(&self) {
        let each = self.errors.iter().map(|(id, error)| (id.as_str(), error.as_str()));
        let (summary, destination) = (ErrorSummary::of(each), self.mail.destination());
        let entered = self.ledger.delivered(destination.clone(), self.seq, summary, self.at).await;
        if let Err(error) = entered {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, txn_id = self.mail.txn_id(), "not entered in the ledger");
        }
    }
}

impl Prepared {
    /// Enters it in the ledger, and where the events are.
    pub(super) async fn note(self) {
        let Self { taken, brought } = self;
        // Together they take one commit.
        tokio::join!(taken.enter(), taken.passed.note(taken.mail.destination(), brought));
    }
}
