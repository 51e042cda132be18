//! What a relay holds when somebody asks.

use async_trait::async_trait;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use restante_operators::Gauges;

use crate::disk::Room;
use crate::state::RelayState;

/// See the module.
pub(super) struct Holdings {
    relay: RelayState,
    values: Values,
}

#[derive(Default)]
struct Values {
    mailboxes: Gauge,
    onward_mailboxes: Gauge,
    registrations: Gauge,
    envelopes: Gauge,
    bytes: Gauge,
    quarantined: Gauge,
    waiting_collects: Gauge,
    onward_destinations: Gauge,
    disk_free_bytes: Gauge,
    disk_low: Gauge,
}

impl Holdings {
    pub(super) fn register(registry: &mut Registry, relay: RelayState) -> Self {
        let values = Values::default();
        for (name, help, gauge) in [
            ("mailboxes", "Mailboxes, empty ones too", &values.mailboxes),
            (
                "onward_mailboxes",
                "Those of them that are there for nothing but mail to be delivered onward",
                &values.onward_mailboxes,
            ),
            ("registrations", "Servers that are registered", &values.registrations),
            ("envelopes", "Envelopes that wait, those set aside not counted", &values.envelopes),
            ("bytes", "Bytes of the envelopes that wait, as received", &values.bytes),
            (
                "quarantined_envelopes",
                "Envelopes that are set aside as damaged",
                &values.quarantined,
            ),
            ("waiting_collects", "Collects that wait for mail", &values.waiting_collects),
            (
                "onward_destinations",
                "Servers to which mail is to be delivered",
                &values.onward_destinations,
            ),
            (
                "disk_free_bytes",
                "Bytes that the disk of the data folder has left",
                &values.disk_free_bytes,
            ),
            ("disk_low", "1 while mail is refused because the disk is low", &values.disk_low),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { relay, values }
    }

    fn measure_disk(&self) {
        let disk = &self.relay.admission.disk;
        let min = self.relay.rules().storage.free_disk_bytes_min;
        set(&self.values.disk_free_bytes, disk.free_bytes());
        set(&self.values.disk_low, u64::from(disk.room(min) == Room::Low));
    }
}

#[async_trait]
impl Gauges for Holdings {
    async fn measure(&self) {
        let values = &self.values;
        set(&values.waiting_collects, self.relay.arrivals.waiting() as u64);
        set(&values.onward_destinations, self.relay.onward.destinations());
        self.measure_disk();
        match self.relay.stores.upkeep.totals().await {
            Ok(totals) => {
                set(&values.mailboxes, totals.mailboxes);
                set(&values.onward_mailboxes, totals.onward_mailboxes);
                set(&values.registrations, totals.registrations);
                set(&values.envelopes, totals.envelopes);
                set(&values.bytes, totals.bytes);
                set(&values.quarantined, totals.quarantined);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the mailboxes can't be counted for the metrics");
            }
        }
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
