//! The tables of a relay's database. Released steps are never edited.

use restante_sqlite::{Migration, Schema};

/// "RstR" in ASCII.
const APPLICATION_ID: i32 = 0x5273_7452;

pub(super) const SCHEMA: Schema = Schema {
    kind: "relay",
    application_id: APPLICATION_ID,
    migrations: &[Migration { sql: MAILBOXES }],
};

/// A deposit costs the same however much is stored: rows of `envelopes` are appended in the order
/// of their `row`, and each index takes one more entry. `envelopes` has a row id because its rows
/// are large, which a table without one would keep in its inner pages; the small ones of
/// `acknowledged` live in their key's own tree.
///
/// A mailbox's row stays when the mailbox is empty, so that its ids are never given out again.
const MAILBOXES: &str = "
CREATE TABLE mailboxes (
    mailbox INTEGER PRIMARY KEY,
    recipient TEXT NOT NULL UNIQUE,
    last_entry INTEGER NOT NULL,
    envelopes INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    acknowledged_total INTEGER NOT NULL DEFAULT 0,
    expired_total INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE envelopes (
    row INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL REFERENCES mailboxes (mailbox),
    entry INTEGER NOT NULL,
    quarantined INTEGER NOT NULL DEFAULT 0,
    -- NULL when quarantined: the same mail may then be left again.
    duplicate_key BLOB,
    deposited_at INTEGER NOT NULL,
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    content_hash BLOB NOT NULL,
    content_bytes INTEGER NOT NULL,
    members_bytes INTEGER NOT NULL,
    coding INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    -- Last, so that the other columns are read without it.
    body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX envelopes_in_order ON envelopes (mailbox, quarantined, entry);
CREATE UNIQUE INDEX envelopes_by_duplicate_key ON envelopes (duplicate_key)
    WHERE duplicate_key IS NOT NULL;
CREATE INDEX envelopes_by_age ON envelopes (deposited_at);

CREATE TABLE acknowledged (
    duplicate_key BLOB PRIMARY KEY,
    deposited_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX acknowledged_by_age ON acknowledged (deposited_at);

CREATE TABLE health (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    checks INTEGER NOT NULL
) STRICT;

INSERT INTO health VALUES (1, 0);
";
