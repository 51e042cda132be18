-- Events that wait for their predecessors, or for another attempt, apart from the transactions that brought them.
CREATE TABLE backlog (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    room_id     TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    -- waiting: to be delivered; sent: the homeserver took it, not yet confirmed; parked: for good, see reason.
    state       TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'parked')),
    reason      TEXT,
    pdu         BLOB NOT NULL,
    -- JSON list of event ids.
    prev_events TEXT NOT NULL,
    -- The server of its sender; NULL where the PDU names none.
    sender      TEXT,
    is_acl      INTEGER NOT NULL,
    -- Who brought it, whose share of the inbox it takes.
    origin      TEXT NOT NULL,
    is_proven   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    arrived_at  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    UNIQUE (room_id, event_id)
) STRICT;

CREATE INDEX backlog_by_room ON backlog (room_id, state, id);
CREATE INDEX backlog_by_state ON backlog (state, arrived_at);
CREATE INDEX backlog_by_origin ON backlog (origin, is_proven);

-- Numbers of streams that every relay was asked for and none had.
CREATE TABLE stream_holes (
    origin      TEXT NOT NULL,
    stream      TEXT NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    relays      TEXT NOT NULL,
    reported_at INTEGER NOT NULL,
    PRIMARY KEY (origin, stream, first_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX stream_holes_by_time ON stream_holes (reported_at);

INSERT INTO inbox_totals (name, value) VALUES ('events_parked', 0), ('events_confirmed', 0);

-- Whether it was left out because another body under the same id holds all of it.
ALTER TABLE seen ADD COLUMN is_superseded INTEGER NOT NULL DEFAULT 0;
