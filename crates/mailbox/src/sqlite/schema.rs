//! The tables of a relay's database. Released steps are never edited.

use std::path::Path;
use std::time::Duration;

use restante_sqlite::{Migration, Schema};
use rusqlite::{Connection, OpenFlags};

/// "RstR" in ASCII.
const APPLICATION_ID: i32 = 0x5273_7452;

/// How long the second schema lets mail of the first be kept: thirty days.
pub(super) const FIRST_TIME_TO_LIVE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether the database at `path` has the first schema, which did not say when mail expires. One that can't be read has none;
/// whoever opens it says why.
pub(super) fn is_first(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let version = Connection::open_with_flags(path, flags)
        .and_then(|database| database.query_row("PRAGMA user_version", [], |row| row.get(0)));
    version.is_ok_and(|version: i64| version == 1)
}

/// Has all mail expire so long after its deposit.
pub(super) fn keep_all(connection: &Connection, time_to_live: Duration) -> rusqlite::Result<()> {
    let kept = i64::try_from(time_to_live.as_millis()).unwrap_or(i64::MAX).min(1 << 53);
    let sql = "UPDATE envelopes SET expires_at = max(0, min(deposited_at, 1 << 53)) + ?1";
    connection.execute(sql, [kept]).map(drop)
}

pub(super) const SCHEMA: Schema = Schema {
    kind: "relay",
    application_id: APPLICATION_ID,
    migrations: &[
        Migration { sql: MAILBOXES },
        Migration { sql: ADMISSION },
        Migration { sql: LAPSING },
        Migration { sql: ONWARD },
        Migration { sql: DESTINATIONS },
        Migration { sql: EXPIRED_TO },
    ],
};

/// A deposit costs the same however much is stored: rows of `envelopes` are appended in the order
/// of their `row`, and each index takes one more entry. `envelopes` has a row id because its rows
/// are large, which a table without one would keep in its inner pages; the small ones of
/// `acknowledged` live in their key's own tree.
///
/// A mailbox's row stays for a while when the mailbox is empty: its ids go on where they were.
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

/// Copies `envelopes` once, so that what is read without the body stands before it. Values that damage gave another type are
/// carried along as what they can be cast to: their checksum tells, and the rest of the mail must not wait for them. For the same
/// reason the number of the mailbox is no foreign key.
///
/// Mail of the first schema gets [`FIRST_TIME_TO_LIVE`]; [`keep_all`] then gives it what is configured.
///
/// `shares` and `totals` are sums over `envelopes` that are not quarantined; a share of nothing has no row. A lost envelope's
/// origin is empty where losses of several origins are summed up. `seal` is 0 for a body that is not sealed.
const ADMISSION: &str = "
ALTER TABLE mailboxes ADD COLUMN dropped_total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailboxes ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailboxes ADD COLUMN last_loss INTEGER;

ALTER TABLE envelopes RENAME TO envelopes_1;

CREATE TABLE envelopes (
    row INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    quarantined INTEGER NOT NULL DEFAULT 0,
    -- NULL when quarantined: the same mail may then be left again.
    duplicate_key BLOB,
    deposited_at INTEGER NOT NULL,
    -- Not under the checksum, because a hold prolongs it.
    expires_at INTEGER NOT NULL,
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    content_hash BLOB NOT NULL,
    content_bytes INTEGER NOT NULL,
    members_bytes INTEGER NOT NULL,
    coding INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    -- Last, so that the other columns are read without it.
    body BLOB NOT NULL
) STRICT;

INSERT INTO envelopes
SELECT row, coalesce(CAST(mailbox AS INTEGER), 0), coalesce(CAST(entry AS INTEGER), 0),
    coalesce(CAST(quarantined AS INTEGER), 0), CAST(duplicate_key AS BLOB),
    coalesce(CAST(deposited_at AS INTEGER), 0),
    max(0, min(coalesce(CAST(deposited_at AS INTEGER), 0), 1 << 53)) + 2592000000,
    coalesce(CAST(origin AS TEXT), ''), coalesce(CAST(txn_id AS TEXT), ''),
    coalesce(CAST(content_hash AS BLOB), x''), coalesce(CAST(content_bytes AS INTEGER), 0),
    coalesce(CAST(members_bytes AS INTEGER), 0), coalesce(CAST(coding AS INTEGER), 0), 0,
    coalesce(CAST(checksum AS BLOB), x''), coalesce(CAST(body AS BLOB), x'')
FROM envelopes_1 ORDER BY row;

DROP TABLE envelopes_1;

CREATE UNIQUE INDEX envelopes_in_order ON envelopes (mailbox, quarantined, entry);
CREATE UNIQUE INDEX envelopes_by_duplicate_key ON envelopes (duplicate_key)
    WHERE duplicate_key IS NOT NULL;
CREATE INDEX envelopes_by_expiry ON envelopes (expires_at);

CREATE TABLE shares (
    mailbox INTEGER NOT NULL,
    origin TEXT NOT NULL,
    envelopes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (mailbox, origin)
) STRICT, WITHOUT ROWID;

INSERT INTO shares
SELECT mailbox, origin, count(*),
    sum(max(0, min(content_bytes, 1 << 40)) + max(0, min(members_bytes, 1 << 40)))
FROM envelopes WHERE quarantined = 0 GROUP BY mailbox, origin;

CREATE TABLE totals (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    mailboxes INTEGER NOT NULL,
    registrations INTEGER NOT NULL,
    envelopes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    quarantined INTEGER NOT NULL
) STRICT;

INSERT INTO totals
SELECT 1, count(*), 0, coalesce(sum(envelopes), 0), coalesce(sum(bytes), 0),
    coalesce(sum(quarantined), 0)
FROM mailboxes;

CREATE TABLE losses (
    mailbox INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    origin TEXT NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (mailbox, kind, origin)
) STRICT, WITHOUT ROWID;

CREATE TABLE registrations (
    mailbox INTEGER PRIMARY KEY,
    record BLOB NOT NULL,
    -- Arrays of patterns; no array allows anyone.
    allow TEXT,
    block TEXT NOT NULL,
    time_to_live INTEGER,
    registered_at INTEGER NOT NULL
) STRICT;

CREATE TABLE invites (
    -- Never given out again, so that revoking an old one never hits another.
    invite INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    server TEXT,
    note TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX invites_by_expiry ON invites (expires_at);

CREATE TABLE seals (
    seal INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    -- By which another key of the same name is noticed.
    proof BLOB NOT NULL,
    envelopes INTEGER NOT NULL
) STRICT;
";

/// Who was registered before may have had an invite, which nobody can tell any more: such a registration stays. `used_at` is
/// when mail came last, and 0 where nobody noted that; such a mailbox counts as used when lapsing first looks at it.
const LAPSING: &str = "
ALTER TABLE mailboxes ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registrations ADD COLUMN by_operator INTEGER NOT NULL DEFAULT 1;
ALTER TABLE registrations ADD COLUMN called_at INTEGER NOT NULL DEFAULT 0;
";

/// `onward` is not under the checksum, because a refusal changes it. It stands behind the body, and 0 and 1 take no bytes there, so
/// that reading them costs no page of it.
///
/// `onward_origins` is a sum over `envelopes` with `onward > 0`. Triggers keep it, so that no way out of that table, of whichever
/// there will be, leaves an origin's share taken for good.
const ONWARD: &str = "
ALTER TABLE mailboxes ADD COLUMN delivered_total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailboxes ADD COLUMN passed_on_total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailboxes ADD COLUMN withdrawn_total INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registrations ADD COLUMN outgoing INTEGER NOT NULL DEFAULT 0;
ALTER TABLE envelopes ADD COLUMN onward INTEGER NOT NULL DEFAULT 0;

CREATE INDEX envelopes_onward ON envelopes (mailbox, origin, entry)
    WHERE onward = 1 AND quarantined = 0;

CREATE TABLE onward_origins (
    origin TEXT PRIMARY KEY,
    envelopes INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER onward_in AFTER INSERT ON envelopes WHEN NEW.onward > 0 BEGIN
    INSERT INTO onward_origins (origin, envelopes, bytes)
    VALUES (NEW.origin, 1,
        max(0, min(NEW.content_bytes, 1 << 40)) + max(0, min(NEW.members_bytes, 1 << 40)))
    ON CONFLICT DO UPDATE SET envelopes = envelopes + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER onward_marked AFTER UPDATE OF onward ON envelopes
WHEN OLD.onward = 0 AND NEW.onward > 0 BEGIN
    INSERT INTO onward_origins (origin, envelopes, bytes)
    VALUES (NEW.origin, 1,
        max(0, min(NEW.content_bytes, 1 << 40)) + max(0, min(NEW.members_bytes, 1 << 40)))
    ON CONFLICT DO UPDATE SET envelopes = envelopes + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER onward_unmarked AFTER UPDATE OF onward ON envelopes
WHEN OLD.onward > 0 AND NEW.onward = 0 BEGIN
    UPDATE onward_origins
    SET envelopes = envelopes - 1, bytes = max(0, bytes - max(0, min(OLD.content_bytes, 1 << 40))
            - max(0, min(OLD.members_bytes, 1 << 40)))
    WHERE origin = OLD.origin;
    DELETE FROM onward_origins WHERE origin = OLD.origin AND envelopes <= 0;
END;

CREATE TRIGGER onward_out AFTER DELETE ON envelopes WHEN OLD.onward > 0 BEGIN
    UPDATE onward_origins
    SET envelopes = envelopes - 1, bytes = max(0, bytes - max(0, min(OLD.content_bytes, 1 << 40))
            - max(0, min(OLD.members_bytes, 1 << 40)))
    WHERE origin = OLD.origin;
    DELETE FROM onward_origins WHERE origin = OLD.origin AND envelopes <= 0;
END;
";

/// `onward_destinations` counts envelopes with `onward > 0` of each origin in each mailbox; triggers keep it, as they keep
/// `onward_origins`. `for_onward` is 1 of a mailbox in which nothing but such mail ever lay, and whose server never registered: it counts
/// among `onward_mailboxes`, and is found by `mailboxes_spent` once it is empty.
///
/// What was there before is told by the index of mail that is to be delivered, so that no page of mail is read, of which one may be
/// damaged: a mailbox is for onward if nothing else lies in it, and mail that its recipient had refused is not counted.
const DESTINATIONS: &str = "
ALTER TABLE mailboxes ADD COLUMN for_onward INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN onward_mailboxes INTEGER NOT NULL DEFAULT 0;

CREATE TABLE onward_destinations (
    mailbox INTEGER NOT NULL,
    origin TEXT NOT NULL,
    envelopes INTEGER NOT NULL,
    PRIMARY KEY (mailbox, origin)
) STRICT, WITHOUT ROWID;

CREATE INDEX onward_destinations_by_origin ON onward_destinations (origin);

INSERT INTO onward_destinations (mailbox, origin, envelopes)
SELECT coalesce(CAST(mailbox AS INTEGER), 0), coalesce(CAST(origin AS TEXT), ''), count(*)
FROM envelopes INDEXED BY envelopes_onward
WHERE onward = 1 AND quarantined = 0 GROUP BY 1, 2;

UPDATE mailboxes SET for_onward = 1
WHERE quarantined = 0 AND mailbox NOT IN (SELECT mailbox FROM registrations)
    AND envelopes = (
        SELECT sum(envelopes) FROM onward_destinations AS destinations
        WHERE destinations.mailbox = mailboxes.mailbox);

UPDATE totals SET onward_mailboxes = (SELECT count(*) FROM mailboxes WHERE for_onward = 1);

CREATE INDEX mailboxes_spent ON mailboxes (used_at, recipient)
    WHERE for_onward = 1 AND envelopes = 0 AND quarantined = 0 AND held = 0;

CREATE TRIGGER mailbox_for_onward_in AFTER INSERT ON mailboxes WHEN NEW.for_onward = 1 BEGIN
    UPDATE totals SET onward_mailboxes = onward_mailboxes + 1;
END;

CREATE TRIGGER mailbox_for_all AFTER UPDATE OF for_onward ON mailboxes
WHEN OLD.for_onward = 1 AND NEW.for_onward = 0 BEGIN
    UPDATE totals SET onward_mailboxes = max(0, onward_mailboxes - 1);
END;

CREATE TRIGGER mailbox_for_onward_out AFTER DELETE ON mailboxes WHEN OLD.for_onward = 1 BEGIN
    UPDATE totals SET onward_mailboxes = max(0, onward_mailboxes - 1);
END;

CREATE TRIGGER onward_destination_in AFTER INSERT ON envelopes WHEN NEW.onward > 0 BEGIN
    INSERT INTO onward_destinations (mailbox, origin, envelopes) VALUES (NEW.mailbox, NEW.origin, 1)
    ON CONFLICT DO UPDATE SET envelopes = envelopes + 1;
END;

CREATE TRIGGER onward_destination_marked AFTER UPDATE OF onward ON envelopes
WHEN OLD.onward = 0 AND NEW.onward > 0 BEGIN
    INSERT INTO onward_destinations (mailbox, origin, envelopes) VALUES (NEW.mailbox, NEW.origin, 1)
    ON CONFLICT DO UPDATE SET envelopes = envelopes + 1;
END;

CREATE TRIGGER onward_destination_unmarked AFTER UPDATE OF onward ON envelopes
WHEN OLD.onward > 0 AND NEW.onward = 0 BEGIN
    UPDATE onward_destinations SET envelopes = envelopes - 1
    WHERE mailbox = OLD.mailbox AND origin = OLD.origin;
    DELETE FROM onward_destinations
    WHERE mailbox = OLD.mailbox AND origin = OLD.origin AND envelopes <= 0;
END;

CREATE TRIGGER onward_destination_out AFTER DELETE ON envelopes WHEN OLD.onward > 0 BEGIN
    UPDATE onward_destinations SET envelopes = envelopes - 1
    WHERE mailbox = OLD.mailbox AND origin = OLD.origin;
    DELETE FROM onward_destinations
    WHERE mailbox = OLD.mailbox AND origin = OLD.origin AND envelopes <= 0;
END;
";

/// The time by which mail has expired; NULL until that is noted.
const EXPIRED_TO: &str = "
ALTER TABLE health ADD COLUMN expired_to INTEGER;
";
