-- Whether the event came with the proof of who brought it: a copy without makes way for one with.
ALTER TABLE held_events ADD COLUMN is_proven INTEGER NOT NULL DEFAULT 0;

-- SHA-256 of the bytes, for pages have no checksums; NULL where an older program wrote it.
ALTER TABLE held_events ADD COLUMN sha256 BLOB;
ALTER TABLE backlog ADD COLUMN sha256 BLOB;

CREATE TRIGGER held_event_changes AFTER UPDATE OF pdu ON held_events BEGIN
    UPDATE held_totals SET bytes = bytes + length(NEW.pdu) - length(OLD.pdu);
END;

-- Fingerprints of the EDUs in a transaction that the homeserver took; NULL where that is not known.
ALTER TABLE seen ADD COLUMN edus BLOB;

INSERT INTO inbox_totals (name, value) VALUES ('unproven_expired', 0);
