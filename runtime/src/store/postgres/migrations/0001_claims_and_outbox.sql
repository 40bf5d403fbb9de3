-- Tables of `effectively`, version 1, for PostgreSQL 15 and newer.

-- Stays empty. An open claim points into it, so a COMMIT before the fence has closed the claim fails.
CREATE TABLE effectively_gate (
    id smallint PRIMARY KEY CHECK (id IS NULL)
);

-- One row per idempotency key.
CREATE TABLE effectively_claims (
    -- SHA-256 of the length-prefixed scope and parts of the key.
    id          bytea       PRIMARY KEY,
    scope       text        NOT NULL,
    -- Random token of the attempt that wrote the row.
    attempt     bytea       NOT NULL,
    -- SHA-256 of the content that must come again with the key.
    fingerprint bytea,
    -- The recorded outcome. Null in a committed row: the call ended its own transaction, the key is interrupted.
    outcome     bytea,
    -- 1 while the claim is open.
    gate        smallint    CONSTRAINT effectively_body_must_not_end_the_transaction
                            REFERENCES effectively_gate (id) DEFERRABLE INITIALLY DEFERRED,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX effectively_claims_expires_at ON effectively_claims (expires_at);

-- Events of committed calls, until the relay has published them.
CREATE TABLE effectively_outbox (
    -- The order of publishing within a partition key.
    id            bigint      GENERATED ALWAYS AS IDENTITY,
    -- Made from the attempt and the event's ordinal in it.
    event_id      uuid        NOT NULL,
    topic         text        NOT NULL,
    type          text        NOT NULL,
    partition_key text,
    partition_no  smallint    NOT NULL,
    data          bytea       NOT NULL,
    -- Extra headers, a JSON object of strings.
    headers       text,
    -- W3C trace context of the call.
    traceparent   text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    available_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition_no, id)
);
