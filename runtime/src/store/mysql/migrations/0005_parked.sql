-- Tables of `effectively`, version 5: an event that waits to be tried again holds up its key on its own route, and no other.

-- An earlier relay counted every try, whether it was under way when the relay died or not.
UPDATE effectively_outbox SET crashes = 0 WHERE crashes > 0;

-- One statement, so that it happens as a whole.
ALTER TABLE effectively_outbox
    -- Whether later events of its key may pass it while it waits to be tried again.
    ADD COLUMN passable     BOOLEAN NOT NULL DEFAULT FALSE,
    -- The epoch of the lease under which it alone was last being published. `crashes` counts each lease once.
    ADD COLUMN suspected_by BIGINT,
    -- SHA-256 of its key while the event waits and may not be passed: an index takes no text of any length.
    ADD COLUMN parked       BINARY(32) GENERATED ALWAYS AS (
        CASE WHEN attempts > 0 AND partition_no < 0 AND NOT passable THEN UNHEX(SHA2(partition_key, 256)) END
    ) VIRTUAL,
    ADD INDEX parked (partition_no, parked),
    -- What has become due is found among any number of events that wait.
    DROP INDEX effectively_outbox_waiting,
    ADD INDEX effectively_outbox_waiting (partition_no, available_at);
