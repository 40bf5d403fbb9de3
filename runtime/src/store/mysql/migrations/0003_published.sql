-- Tables of `effectively`, version 3: published events, where a relay is told to keep them. Times are UTC.

CREATE TABLE effectively_published (
    -- Its place in the outbox.
    id            BIGINT      NOT NULL,
    event_id      BINARY(16)  NOT NULL,
    topic         TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    type          TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    partition_key TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    partition_no  SMALLINT    NOT NULL,
    data          LONGBLOB    NOT NULL,
    headers       MEDIUMTEXT  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    traceparent   TEXT        CHARACTER SET ascii COLLATE ascii_bin,
    created_at    DATETIME(6) NOT NULL,
    published_at  DATETIME(6) NOT NULL,
    expires_at    DATETIME(6) NOT NULL,
    -- Places are given out again when a database is restored from a backup: an old row must not stop the relay.
    PRIMARY KEY (id, event_id),
    KEY effectively_published_expires_at (expires_at)
) ENGINE = InnoDB;
