-- The id by which logs name a delivery, where its sender gave one.
ALTER TABLE inbox ADD COLUMN request_id TEXT;

-- Own relays that the homeserver leaves. asked: the relay is to be told; told: it takes nothing more, and what it holds
-- is collected; done: it is empty. What the configuration names stays here as done, so that it counts as left.
CREATE TABLE departures (
    relay TEXT PRIMARY KEY,
    mail  TEXT NOT NULL CHECK (mail IN ('drop', 'keep')),
    state TEXT NOT NULL CHECK (state IN ('asked', 'told', 'done')),
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The own relay record that was made last.
CREATE TABLE own_relay_record (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    record BLOB NOT NULL
) STRICT;

-- Mail that never came, by the word of the relay that lost it; an empty origin sums up those for whom there was no line.
-- The relay counts on in its line until it hears that we know it; earlier_ is what its lines before that came to.
CREATE TABLE losses (
    relay         TEXT NOT NULL,
    kind          TEXT NOT NULL,
    origin        TEXT NOT NULL,
    earlier_count INTEGER NOT NULL,
    earlier_bytes INTEGER NOT NULL,
    first_at      INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    until         INTEGER NOT NULL,
    PRIMARY KEY (relay, kind, origin)
) STRICT, WITHOUT ROWID;

CREATE INDEX losses_by_time ON losses (until);
