-- Events that a destination is known to have, or finds in mail that was left for it. The smallest ids are forgotten
-- first.
CREATE TABLE passed (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    noted_at    INTEGER NOT NULL,
    UNIQUE (destination, event_id)
) STRICT;

CREATE INDEX passed_by_time ON passed (noted_at);

-- Events that the homeserver lacks or may ask for while their senders are offline.
CREATE TABLE held_events (
    room_id     TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    -- A JSON list of event ids.
    prev_events TEXT NOT NULL,
    pdu         BLOB NOT NULL,
    -- backlog: its delivery waits for a gap to close, and nobody else keeps it; capsule: it came along with mail.
    source      TEXT NOT NULL CHECK (source IN ('backlog', 'capsule')),
    arrived_at  INTEGER NOT NULL,
    PRIMARY KEY (room_id, event_id)
) STRICT;

CREATE INDEX held_events_by_id ON held_events (event_id);
CREATE INDEX held_events_by_time ON held_events (source, arrived_at);

-- What all of them take, kept so that nobody has to count.
CREATE TABLE held_totals (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO held_totals (only, count, bytes) VALUES (1, 0, 0);

CREATE TRIGGER held_event_comes AFTER INSERT ON held_events BEGIN
    UPDATE held_totals SET count = count + 1, bytes = bytes + length(NEW.pdu);
END;

CREATE TRIGGER held_event_goes AFTER DELETE ON held_events BEGIN
    UPDATE held_totals SET count = count - 1, bytes = bytes - length(OLD.pdu);
END;
