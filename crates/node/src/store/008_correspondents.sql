-- Servers that called us and were believed, or answered us: whose mail we may have missed while we were away.
CREATE TABLE correspondents (
    server_name TEXT PRIMARY KEY,
    met_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX correspondents_by_time ON correspondents (met_at);
