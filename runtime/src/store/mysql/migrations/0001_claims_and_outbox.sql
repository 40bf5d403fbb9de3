-- Tables of `effectively`, version 1, for MySQL 8.0 and MariaDB 10.11 and newer. Times are UTC.

-- One row per idempotency key.
CREATE TABLE effectively_claims (
    -- SHA-256 of the length-prefixed scope and parts of the key.
    id          BINARY(32)  NOT NULL PRIMARY KEY,
    scope       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- Random token of the attempt that wrote the row.
    attempt     BINARY(16)  NOT NULL,
    -- SHA-256 of the content that must come again with the key.
    fingerprint BINARY(32),
    -- The recorded outcome. Null in a committed row: the call ended its own transaction, the key is interrupted.
    outcome     LONGBLOB,
    created_at  DATETIME(6) NOT NULL,
    expires_at  DATETIME(6) NOT NULL,
    KEY effectively_claims_expires_at (expires_at)
) ENGINE = InnoDB;

-- Events of committed calls, until the relay has published them.
CREATE TABLE effectively_outbox (
    -- The order of publishing within a partition key.
    id            BIGINT      NOT NULL AUTO_INCREMENT,
    -- Made from the attempt and the event's ordinal in it.
    event_id      BINARY(16)  NOT NULL,
    topic         TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    type          TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    partition_key TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    partition_no  SMALLINT    NOT NULL,
    data          LONGBLOB    NOT NULL,
    -- Extra headers, a JSON object of strings.
    headers       MEDIUMTEXT  CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    -- W3C trace context of the call.
    traceparent   TEXT        CHARACTER SET ascii COLLATE ascii_bin,
    created_at    DATETIME(6) NOT NULL,
    available_at  DATETIME(6) NOT NULL,
    PRIMARY KEY (partition_no, id),
    KEY effectively_outbox_id (id)
) ENGINE = InnoDB;
