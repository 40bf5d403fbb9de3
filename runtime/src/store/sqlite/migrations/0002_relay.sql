-- Tables of `effectively`, version 2: what the relay works with. Times are milliseconds since 1970, UTC.

-- How often a sink has rejected it.
ALTER TABLE effectively_outbox ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
-- How often a relay died while this event alone was being published.
ALTER TABLE effectively_outbox ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE effectively_outbox ADD COLUMN last_error TEXT;

-- An event that may not be published yet waits in partition -1 - p. What stands in partition p is due, so that a relay which
-- reads it never steps over delayed events.
UPDATE effectively_outbox SET partition_no = -1 - partition_no
WHERE available_at > CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);

CREATE INDEX effectively_outbox_waiting ON effectively_outbox (available_at) WHERE partition_no < 0;
-- What was rejected before is found among any number of events that are only delayed.
CREATE INDEX effectively_outbox_retrying ON effectively_outbox (partition_no) WHERE attempts > 0;

-- Events that will not be published by themselves.
CREATE TABLE effectively_dead_letters (
    -- Its place in the outbox, where it returns to when it is retried.
    id            INTEGER PRIMARY KEY,
    event_id      BLOB    NOT NULL,
    topic         TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    partition_key TEXT,
    partition_no  INTEGER NOT NULL,
    data          BLOB    NOT NULL,
    headers       TEXT,
    traceparent   TEXT,
    created_at    INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    -- Why the last attempt failed.
    error         TEXT    NOT NULL,
    failed_at     INTEGER NOT NULL
);

-- Who may publish the events of a partition. A relay whose lease has ended settles nothing: the epoch is not its own any more.
CREATE TABLE effectively_leases (
    partition_no INTEGER PRIMARY KEY,
    -- The relay. Null: given up in order.
    holder       BLOB,
    -- Grows with each holder.
    epoch        INTEGER NOT NULL DEFAULT 0,
    expires_at   INTEGER NOT NULL DEFAULT 0,
    -- How many holders in a row have died with it.
    deaths       INTEGER NOT NULL DEFAULT 0
);

INSERT INTO effectively_leases (partition_no) VALUES
    (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15),
    (16), (17), (18), (19), (20), (21), (22), (23), (24), (25), (26), (27), (28), (29), (30), (31),
    (32), (33), (34), (35), (36), (37), (38), (39), (40), (41), (42), (43), (44), (45), (46), (47),
    (48), (49), (50), (51), (52), (53), (54), (55), (56), (57), (58), (59), (60), (61), (62), (63);

-- The relays that are alive, so that each takes its share of the partitions.
CREATE TABLE effectively_relays (
    id         BLOB    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
