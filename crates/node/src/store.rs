//! The node's database: its schema, and one file per table group.

pub(crate) mod backlog;
pub(crate) mod checksum;
pub(crate) mod correspondents;
pub(crate) mod departures;
pub(crate) mod destinations;
pub(crate) mod held;
pub(crate) mod holes;
pub(crate) mod inbox;
pub(crate) mod later_receipts;
pub(crate) mod ledger;
pub(crate) mod losses;
pub(crate) mod outbox;
pub(crate) mod own_record;
pub(crate) mod passed;
pub(crate) mod receipts_due;
pub(crate) mod relay_records;
pub(crate) mod relays;
pub(crate) mod rooms;
pub(crate) mod seen;
pub(crate) mod trust;

use std::path::Path;

use restante_federation_proto::Timestamp;
use restante_sqlite::{Database, Limits, Migration, OpenError, Schema};

/// "ReNd" in ASCII.
const APPLICATION_ID: i32 = 0x5265_4e64;

/// The schema of a node's database.
pub const SCHEMA: Schema = Schema {
    kind: "node",
    application_id: APPLICATION_ID,
    migrations: &[
        Migration { sql: include_str!("store/001_outbound.sql") },
        Migration { sql: include_str!("store/002_inbound.sql") },
        Migration { sql: include_str!("store/003_capsules.sql") },
        Migration { sql: include_str!("store/004_backlog.sql") },
        Migration { sql: include_str!("store/005_proven.sql") },
        Migration { sql: include_str!("store/006_mailboxes.sql") },
        Migration { sql: include_str!("store/007_relay_records.sql") },
        Migration { sql: include_str!("store/008_outbox.sql") },
        Migration { sql: include_str!("store/009_correspondents.sql") },
        Migration { sql: include_str!("store/010_waiting.sql") },
        Migration { sql: include_str!("store/011_kept_capsules.sql") },
    ],
};

/// Opens or creates the node's database in `folder`.
pub(crate) fn open(folder: &Path) -> Result<Database, OpenError> {
    open_within(folder, Limits::default())
}

fn open_within(folder: &Path, limits: Limits) -> Result<Database, OpenError> {
    Database::open(&folder.join("node.sqlite"), &SCHEMA, limits)
}

/// A number as SQLite keeps it. None of ours comes near 2^63.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time that was kept with [`number`].
pub(crate) fn timestamp(value: i64) -> Timestamp {
    Timestamp::from_millis(value.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests;
