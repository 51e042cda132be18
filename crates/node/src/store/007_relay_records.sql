-- Relay records of other servers, as they were signed. learned_from is 'well-known', 'server', 'mail', or 'relay '
-- and the relay's name.
CREATE TABLE relay_records (
    server       TEXT PRIMARY KEY,
    record       BLOB NOT NULL,
    sha256       BLOB NOT NULL,
    learned_from TEXT NOT NULL,
    learned_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX relay_records_by_time ON relay_records (learned_at);
