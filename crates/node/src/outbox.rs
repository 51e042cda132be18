//! The outbox: what was left with relays, kept until it is known to have arrived.
//!
//! What is decided here is decided in the pure files [`rule`] and [`trust`]; [`destinations`] and [`audit`] carry it out,
//! [`receipts`] tells others what became of their mail, and [`withdrawing`] our own relays what they need not deliver any more.

mod audit;
pub(crate) mod copy;
mod destinations;
mod receipts;
pub(crate) mod rule;
#[cfg(test)]
mod tests;
pub(crate) mod trust;
pub(crate) mod withdrawing;

use std::time::Duration;

use restante_federation_proto::ServerName;
use restante_operators::Adjustable;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::OutboxSection;
use crate::delivery::Delivery;
use crate::delivery::ledger::forgotten_before;
use crate::restart::kept_running;
use crate::site::Site;
use crate::store::ledger;

pub(crate) use copy::KeptCopy;
use withdrawing::Arrived;

/// Between two looks for lines of the ledger that are old enough to go.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// What wakes the outbox.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    /// Mail ended that may be confirmed to its origin.
    pub(crate) receipts: Notify,
    /// Something was left, or a recipient said what became of it.
    pub(crate) copies: Notify,
    /// Mail arrived that our outgoing relays may hold.
    pub(crate) arrived: Arrived,
}

impl Bells {
    /// `recipient` said what became of its mail, and that is kept.
    pub(crate) fn told_by(&self, recipient: &ServerName) {
        self.copies.notify_one();
        self.arrived.note(recipient);
    }
}

/// What works behind the outbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    site: Site,
    delivery: Delivery,
    settings: Adjustable<OutboxSettings>,
}

impl Outbox {
    /// Sends through `delivery`.
    pub(crate) fn new(
        site: Site,
        delivery: Delivery,
        settings: Adjustable<OutboxSettings>,
    ) -> Self {
        Self { site, delivery, settings }
    }
}

/// Runs everything behind the outbox until `shutdown`.
pub(crate) async fn run(outbox: Outbox, shutdown: CancellationToken) {
    let work = async {
        tokio::join!(
            kept_running("the outbox", &shutdown, || destinations::run(&outbox)),
            kept_running("the audit of relays", &shutdown, || audit::run(&outbox)),
            kept_running("the sending of receipts", &shutdown, || receipts::run(&outbox)),
            kept_running("taking back what has arrived", &shutdown, || withdrawing::run(&outbox)),
            kept_running("forgetting what is old", &shutdown, || forget_lines(&outbox)),
        )
    };
    // What is cut off here is not entered as done, and is done again after the next start.
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        _ = work => {}
    }
}

/// Forgets lines of the ledger that nobody can ask for any more.
async fn forget_lines(outbox: &Outbox) {
    loop {
        let before = forgotten_before(outbox.site.clock.now());
        if let Err(error) = ledger::forget(&outbox.site.database, before).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "old lines of the ledger can't be removed now");
        }
        tokio::time::sleep(FORGET_INTERVAL).await;
    }
}

/// How the outbox works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxSettings {
    /// Bytes of all copies.
    pub(crate) bytes_max: u64,
    /// How long a destination that answers may take to confirm.
    pub(crate) confirm_wait: Duration,
    /// How long a relay is not asked what became of a transaction.
    pub(crate) audit_after: Duration,
    /// Between two such questions.
    pub(crate) audit_interval: Duration,
}

impl From<&OutboxSection> for OutboxSettings {
    fn from(section: &OutboxSection) -> Self {
        Self {
            bytes_max: section.bytes_max,
            confirm_wait: section.confirm_wait.0,
            audit_after: section.audit_after.0,
            audit_interval: section.audit_interval.0,
        }
    }
}
