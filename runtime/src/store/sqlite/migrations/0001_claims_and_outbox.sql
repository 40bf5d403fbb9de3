-- Tables of `effectively`, version 1, for SQLite 3.35 and newer. Times are milliseconds since 1970, UTC.

-- Stays empty. An open claim points into it, so a COMMIT before the fence has closed the claim fails.
CREATE TABLE effectively_gate (
    id INTEGER PRIMARY KEY CHECK (id < 0 AND id > 0)
);

-- One row per idempotency key.
CREATE TABLE effectively_claims (
    -- SHA-256 of the length-prefixed scope and parts of the key.
    id          BLOB    NOT NULL PRIMARY KEY,
    scope       TEXT    NOT NULL,
    -- Random token of the attempt that wrote the row.
    attempt     BLOB    NOT NULL,
    -- SHA-256 of the content that must come again with the key.
    fingerprint BLOB,
    -- The recorded outcome. Null in a committed row: the call ended its own transaction, the key is interrupted.
    outcome     BLOB,
    -- 1 while the claim is open: the value of `PRAGMA foreign_keys`, so that a gate that would not hold is refused.
    gate        INTEGER CONSTRAINT effectively_foreign_keys_must_be_on CHECK (gate = 1)
                        REFERENCES effectively_gate (id) DEFERRABLE INITIALLY DEFERRED,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX effectively_claims_expires_at ON effectively_claims (expires_at);

-- Events of committed calls, until the relay has published them.
CREATE TABLE effectively_outbox (
    -- The order of publishing within a partition key. Never used twice.
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Made from the attempt and the event's ordinal in it.
    event_id      BLOB    NOT NULL,
    topic         TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    partition_key TEXT,
    partition_no  INTEGER NOT NULL,
    data          BLOB    NOT NULL,
    -- Extra headers, a JSON object of strings.
    headers       TEXT,
    -- W3C trace context of the call.
    traceparent   TEXT,
    created_at    INTEGER NOT NULL,
    available_at  INTEGER NOT NULL
);

CREATE INDEX effectively_outbox_partition ON effectively_outbox (partition_no, id);
