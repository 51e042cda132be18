-- How the mail ended, or that events of it wait: what is said again when the mail comes again.
ALTER TABLE seen ADD COLUMN ended_as TEXT CHECK (ended_as IN ('delivered', 'parked', 'waiting'));

-- Mail whose origin heard that events of it wait in a room's backlog: it hears how they ended. The smallest ids make room.
CREATE TABLE later_receipts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    origin  TEXT NOT NULL,
    txn_id  TEXT NOT NULL,
    sha256  BLOB NOT NULL,
    relay   TEXT,
    -- But for what waits.
    outcome TEXT NOT NULL CHECK (outcome IN ('delivered', 'parked')),
    -- JSON: the events by id, as the receipt has them.
    pdus    TEXT NOT NULL,
    UNIQUE (origin, txn_id, sha256)
) STRICT;

CREATE INDEX later_receipts_by_origin ON later_receipts (origin, id);

-- The events that these wait for.
CREATE TABLE awaited_events (
    room_id  TEXT NOT NULL,
    event_id TEXT NOT NULL,
    receipt  INTEGER NOT NULL,
    PRIMARY KEY (room_id, event_id, receipt)
) STRICT, WITHOUT ROWID;

CREATE INDEX awaited_events_by_receipt ON awaited_events (receipt);

-- Since when its recipient has it and says that events of it wait there: another receipt says how they ended.
ALTER TABLE ledger ADD COLUMN waits_since INTEGER;

-- When its recipient, which asked all its relays, said that it never came: a relay that holds it withholds it.
ALTER TABLE ledger_holders ADD COLUMN missed_at INTEGER;
