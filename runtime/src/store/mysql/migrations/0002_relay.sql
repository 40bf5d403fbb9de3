-- Tables of `effectively`, version 2: what the relay works with. Times are UTC.

-- How often a sink has rejected it.
ALTER TABLE effectively_outbox ADD COLUMN attempts SMALLINT NOT NULL DEFAULT 0;
-- How often a relay died while this event alone was being published.
ALTER TABLE effectively_outbox ADD COLUMN crashes SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE effectively_outbox ADD COLUMN last_error TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- An event that may not be published yet waits in partition -1 - p. What stands in partition p is due, so that a relay which
-- reads it never steps over delayed events.
UPDATE effectively_outbox SET partition_no = -1 - partition_no WHERE available_at > UTC_TIMESTAMP(6);

-- What has become due, and what was rejected before, is found among any number of events that are only delayed.
CREATE INDEX effectively_outbox_waiting ON effectively_outbox (partition_no, attempts, available_at);

-- Events that will not be published by themselves.
CREATE TABLE effectively_dead_letters (
    -- Its place in the outbox, where it returns to when it is retried.
    id            BIGINT      NOT NULL PRIMARY KEY,
    event_id      BINARY(16)  NOT NULL,
    topic         TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    type          TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    partition_key TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    partition_no  SMALLINT    NOT NULL,
    data          LONGBLOB    NOT NULL,
    headers       MEDIUMTEXT  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    traceparent   TEXT        CHARACTER SET ascii COLLATE ascii_bin,
    created_at    DATETIME(6) NOT NULL,
    attempts      SMALLINT    NOT NULL,
    -- Why the last attempt failed.
    error         TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    failed_at     DATETIME(6) NOT NULL
) ENGINE = InnoDB;

-- Who may publish the events of a partition. A relay whose lease has ended settles nothing: the epoch is not its own any more.
CREATE TABLE effectively_leases (
    partition_no SMALLINT    NOT NULL PRIMARY KEY,
    -- The relay. Null: given up in order.
    holder       BINARY(16),
    -- Grows with each holder.
    epoch        BIGINT      NOT NULL DEFAULT 0,
    expires_at   DATETIME(6) NOT NULL,
    -- How many holders in a row have died with it.
    deaths       SMALLINT    NOT NULL DEFAULT 0
) ENGINE = InnoDB;

INSERT INTO effectively_leases (partition_no, expires_at) VALUES
    (0, UTC_TIMESTAMP(6)), (1, UTC_TIMESTAMP(6)), (2, UTC_TIMESTAMP(6)), (3, UTC_TIMESTAMP(6)), (4, UTC_TIMESTAMP(6)), (5, UTC_TIMESTAMP(6)), (6, UTC_TIMESTAMP(6)), (7, UTC_TIMESTAMP(6)),
    (8, UTC_TIMESTAMP(6)), (9, UTC_TIMESTAMP(6)), (10, UTC_TIMESTAMP(6)), (11, UTC_TIMESTAMP(6)), (12, UTC_TIMESTAMP(6)), (13, UTC_TIMESTAMP(6)), (14, UTC_TIMESTAMP(6)), (15, UTC_TIMESTAMP(6)),
    (16, UTC_TIMESTAMP(6)), (17, UTC_TIMESTAMP(6)), (18, UTC_TIMESTAMP(6)), (19, UTC_TIMESTAMP(6)), (20, UTC_TIMESTAMP(6)), (21, UTC_TIMESTAMP(6)), (22, UTC_TIMESTAMP(6)), (23, UTC_TIMESTAMP(6)),
    (24, UTC_TIMESTAMP(6)), (25, UTC_TIMESTAMP(6)), (26, UTC_TIMESTAMP(6)), (27, UTC_TIMESTAMP(6)), (28, UTC_TIMESTAMP(6)), (29, UTC_TIMESTAMP(6)), (30, UTC_TIMESTAMP(6)), (31, UTC_TIMESTAMP(6)),
    (32, UTC_TIMESTAMP(6)), (33, UTC_TIMESTAMP(6)), (34, UTC_TIMESTAMP(6)), (35, UTC_TIMESTAMP(6)), (36, UTC_TIMESTAMP(6)), (37, UTC_TIMESTAMP(6)), (38, UTC_TIMESTAMP(6)), (39, UTC_TIMESTAMP(6)),
    (40, UTC_TIMESTAMP(6)), (41, UTC_TIMESTAMP(6)), (42, UTC_TIMESTAMP(6)), (43, UTC_TIMESTAMP(6)), (44, UTC_TIMESTAMP(6)), (45, UTC_TIMESTAMP(6)), (46, UTC_TIMESTAMP(6)), (47, UTC_TIMESTAMP(6)),
    (48, UTC_TIMESTAMP(6)), (49, UTC_TIMESTAMP(6)), (50, UTC_TIMESTAMP(6)), (51, UTC_TIMESTAMP(6)), (52, UTC_TIMESTAMP(6)), (53, UTC_TIMESTAMP(6)), (54, UTC_TIMESTAMP(6)), (55, UTC_TIMESTAMP(6)),
    (56, UTC_TIMESTAMP(6)), (57, UTC_TIMESTAMP(6)), (58, UTC_TIMESTAMP(6)), (59, UTC_TIMESTAMP(6)), (60, UTC_TIMESTAMP(6)), (61, UTC_TIMESTAMP(6)), (62, UTC_TIMESTAMP(6)), (63, UTC_TIMESTAMP(6));

-- The relays that are alive, so that each takes its share of the partitions.
CREATE TABLE effectively_relays (
    id         BINARY(16)  NOT NULL PRIMARY KEY,
    expires_at DATETIME(6) NOT NULL
) ENGINE = InnoDB;
