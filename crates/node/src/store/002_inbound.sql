-- Mail for the homeserver, from its arrival until it is confirmed.
CREATE TABLE inbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    origin        TEXT NOT NULL,
    txn_id        TEXT NOT NULL,
    sha256        BLOB NOT NULL,
    -- waiting: to be delivered; delivered: taken, its events not yet confirmed; parked: for good, see reason;
    -- unverified: no believed key says whether it is the origin's; forged: it is not.
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'parked', 'unverified', 'forged')),
    reason        TEXT,
    -- The proof; NULL for mail without one.
    uri           TEXT,
    authorization TEXT,
    content       BLOB NOT NULL,
    -- The members that came along, kept until they are judged.
    extras        BLOB NOT NULL,
    -- The place, by a verified waybill.
    stream        TEXT,
    seq           INTEGER,
    deposited_at  INTEGER,
    -- The relay that gave it, or 'direct'.
    source        TEXT NOT NULL,
    arrived_at    INTEGER NOT NULL,
    bytes         INTEGER NOT NULL
) STRICT;

CREATE INDEX inbox_by_place ON inbox (origin, stream, seq, id) WHERE state = 'waiting';
CREATE INDEX inbox_by_state ON inbox (state, origin, id);
CREATE INDEX inbox_by_transaction ON inbox (origin, txn_id, sha256);

-- Verified transactions that arrived, for longer than a relay may hold them.
CREATE TABLE seen (
    origin  TEXT NOT NULL,
    txn_id  TEXT NOT NULL,
    sha256  BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (origin, txn_id, sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX seen_by_time ON seen (seen_at);

-- How far each stream of an origin is done with.
CREATE TABLE streams (
    origin       TEXT NOT NULL,
    stream       TEXT NOT NULL,
    done_through INTEGER NOT NULL,
    changed_at   INTEGER NOT NULL,
    PRIMARY KEY (origin, stream)
) STRICT, WITHOUT ROWID;

CREATE INDEX streams_by_time ON streams (changed_at);

-- A room's version never changes.
CREATE TABLE room_versions (
    room_id TEXT PRIMARY KEY,
    version TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Counters since the database was made.
CREATE TABLE inbox_totals (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO inbox_totals (name, value) VALUES ('confirmed', 0), ('parked', 0), ('forged_dropped', 0);
