-- Tables of `effectively`, version 5: an event that waits to be tried again holds up its key on its own route, and no other.

-- Whether later events of its key may pass it while it waits to be tried again.
ALTER TABLE effectively_outbox ADD COLUMN passable INTEGER NOT NULL DEFAULT 0;
-- An earlier relay counted every try, whether it was under way when the relay died or not.
UPDATE effectively_outbox SET crashes = 0 WHERE crashes > 0;
-- The epoch of the lease under which it alone was last being published. `crashes` counts each lease once.
ALTER TABLE effectively_outbox ADD COLUMN suspected_by INTEGER;

-- A key is parked while an event of it waits that may not be passed.
CREATE INDEX effectively_outbox_parked ON effectively_outbox (partition_key) WHERE attempts > 0 AND passable = 0;
