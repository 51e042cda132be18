-- Servers that answered us, or called and were believed: whose mail we may have missed while we were away.
CREATE TABLE correspondents (
    server_name  TEXT PRIMARY KEY,
    met_at       INTEGER NOT NULL,
    -- Whether it answered a call of ours: only then it is not just anybody.
    has_answered INTEGER NOT NULL CHECK (has_answered IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX correspondents_by_time ON correspondents (has_answered, met_at);

-- When they were last told that we are back.
CREATE TABLE waking (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    last_at INTEGER NOT NULL
) STRICT;
