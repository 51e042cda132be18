-- The capsule that went with a copy, compressed like its content and under the same SHA-256: what is left again needs it again, and
-- what was noted as being at the destination since is nowhere if its relay lost it.
ALTER TABLE kept_copies ADD COLUMN capsule BLOB;

DROP TRIGGER kept_copy_comes;
DROP TRIGGER kept_copy_goes;

CREATE TRIGGER kept_copy_comes AFTER INSERT ON kept_copies BEGIN
    UPDATE outbox_totals SET value = value + 1 WHERE name = 'copies';
    UPDATE outbox_totals SET value = value + length(NEW.content) + coalesce(length(NEW.capsule), 0)
        WHERE name = 'copy_bytes';
    INSERT INTO copy_shares (destination, bytes) SELECT NEW.destination, 0
        WHERE NOT EXISTS (SELECT 1 FROM copy_shares WHERE destination = NEW.destination);
    UPDATE copy_shares SET bytes = bytes + length(NEW.content) + coalesce(length(NEW.capsule), 0)
        WHERE destination = NEW.destination;
END;

CREATE TRIGGER kept_copy_goes AFTER DELETE ON kept_copies BEGIN
    UPDATE outbox_totals SET value = value - 1 WHERE name = 'copies';
    UPDATE outbox_totals SET value = value - length(OLD.content) - coalesce(length(OLD.capsule), 0)
        WHERE name = 'copy_bytes';
    UPDATE copy_shares SET bytes = bytes - length(OLD.content) - coalesce(length(OLD.capsule), 0)
        WHERE destination = OLD.destination;
    DELETE FROM copy_shares WHERE destination = OLD.destination AND bytes <= 0;
END;
