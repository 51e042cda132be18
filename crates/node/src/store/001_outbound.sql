-- What this installation is: the name of its streams, drawn at random with the database.
CREATE TABLE installation (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    stream TEXT NOT NULL
) STRICT;

-- The newest number of each stream; outlives the ledger's lines.
CREATE TABLE sent_streams (
    destination TEXT PRIMARY KEY,
    newest_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One line for each transaction: its number, and what became of it.
CREATE TABLE ledger (
    destination TEXT NOT NULL,
    seq INTEGER NOT NULL,
    txn_id TEXT NOT NULL,
    content_sha256 BLOB NOT NULL,
    first_at INTEGER NOT NULL,
    delivered_at INTEGER,
    PRIMARY KEY (destination, seq),
    UNIQUE (destination, txn_id, content_sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_by_age ON ledger (first_at);

-- Which relays hold it.
CREATE TABLE ledger_holders (
    destination TEXT NOT NULL,
    seq INTEGER NOT NULL,
    relay TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (destination, seq, relay)
) STRICT, WITHOUT ROWID;

-- Destinations that did not answer.
CREATE TABLE destinations (
    server_name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    assumed_offline_since INTEGER,
    next_probe_at INTEGER
) STRICT, WITHOUT ROWID;

-- Relays that the operator added.
CREATE TABLE relays (
    server_name TEXT NOT NULL,
    relay TEXT NOT NULL,
    url TEXT,
    PRIMARY KEY (server_name, relay)
) STRICT, WITHOUT ROWID;

-- The own key document that was minted last.
CREATE TABLE own_key_document (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    document BLOB NOT NULL
) STRICT;
