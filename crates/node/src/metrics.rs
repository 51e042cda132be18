//! What a node has counted, and what it holds, for monitors. Names and labels are this program's own: no stranger
//! chooses one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use restante_federation_proto::Timestamp;
use restante_operators::{Gauges, Metrics, RequestDurations, free_disk_bytes, set_total};

use crate::inbox::{Inbox, InboxStatus};
use crate::retriever::RetrieverStatus;
use crate::site::Site;
use crate::store::outbox::overview::{self, Totals};

/// What the parts of a node count while they work; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    deliveries: Family<OutcomeLabel, Counter>,
    records: Family<OutcomeLabel, Counter>,
}

/// What became of another server's relay record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordOutcome {
    /// It counts.
    Learned,
    /// One as new is known.
    NotNewer,
    /// Nobody vouches for its key now.
    Unverified,
    /// It is no good, or there is no room for it.
    Refused,
}

impl RecordOutcome {
    const ALL: [Self; 4] = [Self::Learned, Self::NotNewer, Self::Unverified, Self::Refused];

    fn word(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::NotNewer => "not_newer",
            Self::Unverified => "unverified",
            Self::Refused => "refused",
        }
    }
}

/// How a transaction of the homeserver's ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    /// The destination took it.
    Direct,
    /// A relay took it.
    Relayed,
    /// The destination refused it for good.
    Refused,
    /// Nobody took it; the homeserver keeps it.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// A relay that the operator named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RelayLabel {
    relay: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The states of [`InboxStatus::counts`].
const INBOX_STATES: [&str; 5] =
    ["waiting", "unverified_first_contact", "delivered_unconfirmed", "parked", "parked_events"];

impl DeliveryOutcome {
    const ALL: [Self; 4] = [Self::Direct, Self::Relayed, Self::Refused, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Counted {
    pub(crate) fn delivery(&self, outcome: DeliveryOutcome) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome: outcome.word() }).inc();
    }

    pub(crate) fn record(&self, outcome: RecordOutcome) {
        self.records.get_or_create(&OutcomeLabel { outcome: outcome.word() }).inc();
    }
}

/// All metrics of a node, and the durations that its doors measure.
pub(crate) fn of(
    site: &Site,
    inbox: &Inbox,
    retriever: &RetrieverStatus,
    data: &Path,
) -> (Arc<Metrics>, RequestDurations) {
    let mut whole = Registry::default();
    let registry = whole.sub_registry_with_prefix("restante_node");
    let help = "Transactions of the homeserver, by outcome";
    for outcome in DeliveryOutcome::ALL {
        // What has not happened yet is shown as 0.
        drop(site.counted.deliveries.get_or_create(&OutcomeLabel { outcome: outcome.word() }));
    }
    registry.register("deliveries", help, site.counted.deliveries.clone());
    for outcome in RecordOutcome::ALL {
        drop(site.counted.records.get_or_create(&OutcomeLabel { outcome: outcome.word() }));
    }
    let help = "Relay records of other servers that were met with, by outcome";
    registry.register("relay_records", help, site.counted.records.clone());
    let durations = RequestDurations::register(registry, "inbound");
    let look = Look {
        site: site.clone(),
        inbox: inbox.clone(),
        retriever: retriever.clone(),
        data: data.to_owned(),
        started_at: site.clock.now(),
        values: Values::register(registry),
    };
    let metrics = Metrics::of(whole, vec![Arc::new(look)], site.clock.now());
    (Arc::new(metrics), durations)
}

/// Values that are looked up when somebody asks.
struct Look {
    site: Site,
    inbox: Inbox,
    retriever: RetrieverStatus,
    data: PathBuf,
    started_at: Timestamp,
    values: Values,
}

#[derive(Default)]
struct Values {
    inbox: InboxValues,
    outbox: OutboxValues,
    destinations_offline: Gauge,
    last_collect_age: Family<RelayLabel, Gauge>,
    queued: Family<RelayLabel, Gauge>,
    disk_free: Gauge,
}

#[derive(Default)]
struct OutboxValues {
    copies: Gauge,
    copy_bytes: Gauge,
    oldest_age: Gauge,
    distrusted: Gauge,
    totals: [Counter; OUTBOX_TOTALS.len()],
}

/// Totals of the outbox: the name in the database, the metric's, and what it means.
const OUTBOX_TOTALS: [(&str, &str, &str); 7] = [
    (
        "confirmed",
        "outbox_confirmed",
        "Transactions left with relays that their recipient confirmed",
    ),
    (
        "sent_directly",
        "outbox_sent_directly",
        "Transactions left with relays that the destination took from us after all",
    ),
    ("left_again", "outbox_left_again", "Transactions that relays lost, left again"),
    ("copies_dropped", "outbox_copies_dropped", "Copies that made room for others"),
    (
        "copies_expired",
        "outbox_copies_expired",
        "Copies that became too old before anybody confirmed",
    ),
    (
        "receipts_sent",
        "delivery_receipts_sent",
        "Receipts that told origins what became of their mail",
    ),
    (
        "receipts_dropped",
        "delivery_receipts_dropped",
        "Confirmations that could not be told and made room",
    ),
];

impl OutboxValues {
    fn register(&self, registry: &mut Registry) {
        let help =
            "Transactions left with relays that nobody has confirmed, of which a copy is kept";
        registry.register("outbox_unconfirmed", help, self.copies.clone());
        let help = "Bytes of the copies of what was left with relays";
        registry.register("outbox_bytes", help, self.copy_bytes.clone());
        let help = "Seconds since the oldest of them was left";
        registry.register("outbox_oldest_age_seconds", help, self.oldest_age.clone());
        let help = "Relays whose word does not count as sent, since they lost mail again and again";
        registry.register("relays_distrusted", help, self.distrusted.clone());
        for ((_, name, help), counter) in OUTBOX_TOTALS.iter().zip(&self.totals) {
            registry.register(*name, *help, counter.clone());
        }
    }

    fn set(&self, totals: &Totals, now: Timestamp) {
        self.copies.set(gauge(totals.of("copies")));
        self.copy_bytes.set(gauge(totals.of("copy_bytes")));
        let age = totals.oldest_at.map_or(0, |at| now.since(at).as_secs());
        self.oldest_age.set(gauge(age));
        self.distrusted.set(gauge(totals.distrusted));
        for ((name, _, _), counter) in OUTBOX_TOTALS.iter().zip(&self.totals) {
            set_total(counter, totals.of(name));
        }
    }
}

#[derive(Default)]
struct InboxValues {
    envelopes: Family<StateLabel, Gauge>,
    confirmed: Counter,
    parked: Counter,
    dropped: Counter,
    events_confirmed: Counter,
    events_parked: Counter,
    backlog_events: Gauge,
    missing: Gauge,
}

impl Values {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        this.inbox.register(registry);
        this.outbox.register(registry);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(name, help, gauge.clone());
        };
        let help = "Destinations that are assumed offline";
        gauge("destinations_offline", help, &this.destinations_offline);
        let help = "Bytes that the disk of the data folder has left";
        gauge("disk_free_bytes", help, &this.disk_free);
        let help = "Seconds since an own relay last answered, or since the start if it has not";
        registry.register("relay_last_collect_age_seconds", help, this.last_collect_age.clone());
        let help = "Envelopes that wait at an own relay, as it last said";
        registry.register("relay_queued_envelopes", help, this.queued.clone());
        this
    }
}

impl InboxValues {
    fn register(&self, registry: &mut Registry) {
        let help = "Envelopes in the inbox by state; parked_events counts single events";
        registry.register("inbox_envelopes", help, self.envelopes.clone());
        for (name, help, counter) in [
            ("inbox_confirmed", "Envelopes confirmed at the homeserver", &self.confirmed),
            ("inbox_parked", "Envelopes set aside, with a reason", &self.parked),
            ("inbox_dropped", "Envelopes that the operator dropped", &self.dropped),
            ("events_confirmed", "Single events confirmed", &self.events_confirmed),
            ("events_parked", "Single events set aside, with a reason", &self.events_parked),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "Events that wait for earlier ones of their rooms";
        registry.register("backlog_events", help, self.backlog_events.clone());
        let help = "Numbers of senders' streams that no relay gave";
        registry.register("missing_numbers", help, self.missing.clone());
    }

    fn set(&self, status: &InboxStatus) {
        for state in INBOX_STATES {
            let count = status.counts.get(state).copied().unwrap_or(0);
            self.envelopes.get_or_create(&StateLabel { state }).set(gauge(count));
        }
        set_total(&self.confirmed, status.confirmed_total);
        set_total(&self.parked, status.parked_total);
        set_total(&self.dropped, status.dropped_total);
        set_total(&self.events_confirmed, status.events_confirmed_total);
        set_total(&self.events_parked, status.events_parked_total);
        self.backlog_events.set(gauge(status.backlog.iter().map(|room| room.waiting).sum()));
        let missing = status.missing.iter().map(|hole| hole.last - hole.first + 1).sum();
        self.missing.set(gauge(missing));
    }
}

#[async_trait]
impl Gauges for Look {
    async fn measure(&self) {
        match self.inbox.status().await {
            Ok(status) => self.values.inbox.set(&status),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the inbox can't be counted for the metrics");
            }
        }
        match overview::totals(&self.site.database).await {
            Ok(totals) => self.values.outbox.set(&totals, self.site.clock.now()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the outbox can't be counted for the metrics");
            }
        }
        let destinations = self.site.destinations.all().into_iter();
        let offline = destinations.filter(|one| one.assumed_offline_since.is_some()).count();
        self.values.destinations_offline.set(gauge(offline as u64));
        self.measure_relays();
        if let Ok(free) = free_disk_bytes(&self.data) {
            self.values.disk_free.set(gauge(free));
        }
    }
}

impl Look {
    fn measure_relays(&self) {
        let Values { last_collect_age, queued, .. } = &self.values;
        // One that is no longer a relay of ours shows no old values.
        last_collect_age.clear();
        queued.clear();
        let now = self.site.clock.now();
        for relay in self.site.relays.of(self.site.server_name()) {
            let status = self.retriever.of(&relay.peer.name).unwrap_or_default();
            let label = RelayLabel { relay: relay.peer.name.to_string() };
            let heard_at = status.last_collect_at.unwrap_or(self.started_at);
            last_collect_age.get_or_create(&label).set(gauge(now.since(heard_at).as_secs()));
            if let Some(waiting) = status.queued {
                queued.get_or_create(&label).set(gauge(waiting.count));
            }
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
