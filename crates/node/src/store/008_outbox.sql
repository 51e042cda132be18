-- What its recipient said of a transaction: when we heard it, delivered or parked, the relay that brought it first
-- (NULL where we did), and the first of its events that were not taken, as JSON.
ALTER TABLE ledger ADD COLUMN confirmed_at INTEGER;
ALTER TABLE ledger ADD COLUMN confirmed_as TEXT CHECK (confirmed_as IN ('delivered', 'parked'));
ALTER TABLE ledger ADD COLUMN brought_by TEXT;
ALTER TABLE ledger ADD COLUMN errors TEXT;

CREATE INDEX ledger_open ON ledger (destination, seq) WHERE delivered_at IS NULL AND confirmed_at IS NULL;

-- A relay's signed receipt, verified; when it was last asked what became of the transaction, and what it said.
ALTER TABLE ledger_holders ADD COLUMN receipt BLOB;
ALTER TABLE ledger_holders ADD COLUMN asked_at INTEGER;
ALTER TABLE ledger_holders ADD COLUMN said TEXT CHECK (said IN ('held', 'gone'));

CREATE INDEX ledger_holders_by_relay ON ledger_holders (relay, destination, seq);

-- What was left with relays and is not known to have arrived, as the homeserver sent it. The smallest ids make room.
CREATE TABLE kept_copies (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    destination   TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    target        TEXT NOT NULL,
    authorization TEXT NOT NULL,
    -- Compressed by zstd, with SHA-256 of what is here.
    content       BLOB NOT NULL,
    sha256        BLOB NOT NULL,
    kept_at       INTEGER NOT NULL,
    -- Since when no relay is known to hold it, or its recipient says that it never came.
    wanted_at     INTEGER,
    -- Why the destination itself would not take it.
    refused       TEXT,
    UNIQUE (destination, seq)
) STRICT;

CREATE INDEX kept_copies_by_destination ON kept_copies (destination, kept_at, wanted_at, refused);

-- Counters since the database was made, and what all copies take.
CREATE TABLE outbox_totals (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO outbox_totals (name, value) VALUES ('copies', 0), ('copy_bytes', 0), ('confirmed', 0), ('sent_directly', 0),
    ('left_again', 0), ('copies_dropped', 0), ('copies_expired', 0), ('receipts_sent', 0), ('receipts_dropped', 0);

CREATE TRIGGER kept_copy_comes AFTER INSERT ON kept_copies BEGIN
    UPDATE outbox_totals SET value = value + 1 WHERE name = 'copies';
    UPDATE outbox_totals SET value = value + length(NEW.content) WHERE name = 'copy_bytes';
END;

CREATE TRIGGER kept_copy_goes AFTER DELETE ON kept_copies BEGIN
    UPDATE outbox_totals SET value = value - 1 WHERE name = 'copies';
    UPDATE outbox_totals SET value = value - length(OLD.content) WHERE name = 'copy_bytes';
END;

-- What is to be confirmed to the origins of mail that came in: the smallest ids make room.
CREATE TABLE due_confirmations (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    origin   TEXT NOT NULL,
    txn_id   TEXT NOT NULL,
    sha256   BLOB NOT NULL,
    outcome  TEXT NOT NULL CHECK (outcome IN ('delivered', 'parked')),
    relay    TEXT,
    ended_at INTEGER NOT NULL,
    -- JSON: the events by id, as the receipt has them.
    pdus     TEXT NOT NULL,
    UNIQUE (origin, txn_id, sha256)
) STRICT;

CREATE INDEX due_confirmations_by_origin ON due_confirmations (origin, id);

-- Numbers that never came, to be told to their origin.
CREATE TABLE due_missing (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    origin    TEXT NOT NULL,
    stream    TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    UNIQUE (origin, stream, first_seq)
) STRICT;

-- When its end was last made known to its origin.
ALTER TABLE seen ADD COLUMN receipted_at INTEGER;

-- Evidence that a relay did not keep what it took for a destination, and relays whose word does not count there.
CREATE TABLE relay_strikes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    relay       TEXT NOT NULL,
    struck_at   INTEGER NOT NULL,
    txn_id      TEXT NOT NULL,
    evidence    TEXT NOT NULL
) STRICT;

CREATE INDEX relay_strikes_by_relay ON relay_strikes (destination, relay, struck_at);

CREATE TABLE distrusted_relays (
    destination TEXT NOT NULL,
    relay       TEXT NOT NULL,
    since       INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (destination, relay)
) STRICT, WITHOUT ROWID;
