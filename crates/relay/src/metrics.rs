//! What a relay has counted, and what it holds, for monitors. Names and labels are this program's own: no stranger
//! chooses one.

mod counting_store;
mod holdings;
mod requests;

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use restante_mailbox::{Deposited, Full};
use restante_operators::{Metrics, RequestDurations};

use crate::state::RelayState;

pub(crate) use counting_store::CountingStore;
pub(crate) use requests::{Refused, count};

/// What the parts of a relay count while they work; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    deposits: Family<OutcomeLabel, Counter>,
    collects: Counter,
    collected: Counter,
    acknowledged: Counter,
    expired: Counter,
    expired_of_the_moment: Counter,
    dropped: Counter,
    onward: Family<OutcomeLabel, Counter>,
    quarantined: Counter,
    registrations_lapsed: Counter,
    mailboxes_removed: Counter,
    refused: Family<ReasonLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The outcomes of deposits that came as far as the store.
const OUTCOMES: [&str; 6] =
    ["stored", "duplicate", "mailbox_full", "share_full", "relay_full", "failed"];

impl Counted {
    /// Mail that its owners had from elsewhere.
    pub(crate) fn acknowledged(&self, envelopes: u64) {
        self.acknowledged.inc_by(envelopes);
    }

    /// Mail that the operator dropped.
    pub(crate) fn dropped(&self, envelopes: u64) {
        self.dropped.inc_by(envelopes);
    }

    /// What became of an attempt to deliver mail onward.
    pub(crate) fn onward(&self, outcome: &'static str) {
        self.onward.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// What nobody renewed or needed.
    pub(crate) fn lapsed(&self, registrations: u64, mailboxes: u64) {
        self.registrations_lapsed.inc_by(registrations);
        self.mailboxes_removed.inc_by(mailboxes);
    }

    /// Envelopes found damaged on another way than a collect.
    pub(crate) fn quarantined(&self, envelopes: u64) {
        self.quarantined.inc_by(envelopes);
    }

    fn deposit(&self, outcome: Option<Deposited>) {
        let outcome = match outcome {
            Some(Deposited::Stored(_)) => "stored",
            Some(Deposited::Duplicate(_)) => "duplicate",
            Some(Deposited::Full(Full::Mailbox)) => "mailbox_full",
            Some(Deposited::Full(Full::Share)) => "share_full",
            Some(Deposited::Full(Full::Relay)) => "relay_full",
            None => "failed",
        };
        self.deposits.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        for outcome in OUTCOMES {
            // What has not happened yet is shown as 0.
            drop(self.deposits.get_or_create(&OutcomeLabel { outcome }));
        }
        let help = "Deposits that came as far as the store, by outcome";
        registry.register("deposits", help, self.deposits.clone());
        for outcome in crate::onward::OUTCOMES {
            drop(self.onward.get_or_create(&OutcomeLabel { outcome }));
        }
        let help = "Attempts to deliver mail onward, and mail that left that way, by outcome";
        registry.register("onward", help, self.onward.clone());
        for reason in Refused::WORDS {
            drop(self.refused.get_or_create(&ReasonLabel { reason }));
        }
        let help = "Requests at the public door that were refused, by reason";
        registry.register("refused", help, self.refused.clone());
        for (name, help, counter) in [
            ("collects", "Collects that were answered, of one envelope or many", &self.collects),
            (
                "collected",
                "Envelopes handed out, again and again until they are acknowledged",
                &self.collected,
            ),
            ("acknowledged", "Envelopes that their owners acknowledged", &self.acknowledged),
            ("expired", "Envelopes that nobody collected in time", &self.expired),
            (
                "expired_of_the_moment",
                "Envelopes with nothing but typing or presence that nobody collected within a minute",
                &self.expired_of_the_moment,
            ),
            ("dropped", "Envelopes that the operator dropped", &self.dropped),
            ("quarantined", "Envelopes found damaged, and set aside", &self.quarantined),
            (
                "registrations_lapsed",
                "Registrations that ended because their servers were silent",
                &self.registrations_lapsed,
            ),
            (
                "mailboxes_removed",
                "Mailboxes that were empty and that nobody needed any more",
                &self.mailboxes_removed,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}

/// All metrics of a relay, and the durations that its public door measures.
pub(crate) fn of(relay: &RelayState) -> (Arc<Metrics>, RequestDurations) {
    let mut whole = Registry::default();
    let registry = whole.sub_registry_with_prefix("restante_relay");
    relay.counted.register(registry);
    let durations = RequestDurations::register(registry, "public");
    let holdings = holdings::Holdings::register(registry, relay.clone());
    let metrics = Metrics::of(whole, vec![Arc::new(holdings)], relay.clock.now());
    (Arc::new(metrics), durations)
}
