-- Tables of `effectively`, version 3: published events, where a relay is told to keep them. Times are milliseconds since 1970, UTC.

CREATE TABLE effectively_published (
    -- Its place in the outbox.
    id            INTEGER NOT NULL,
    event_id      BLOB    NOT NULL,
    topic         TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    partition_key TEXT,
    partition_no  INTEGER NOT NULL,
    data          BLOB    NOT NULL,
    headers       TEXT,
    traceparent   TEXT,
    created_at    INTEGER NOT NULL,
    published_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    -- Places are given out again when a database is restored from a backup: an old row must not stop the relay.
    PRIMARY KEY (id, event_id)
);

CREATE INDEX effectively_published_expires_at ON effectively_published (expires_at);
