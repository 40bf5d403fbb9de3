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

-- Claims a key or raises. Never waits: the try-lock tells that another call holds the key, the primary key decides.
-- A procedure, so that the server plans its statements once per session and not once per call. CALL is not planned at all.
CREATE PROCEDURE effectively_claim (
    claim_id bytea, claim_scope text, claim_attempt bytea, claim_fingerprint bytea, retention_ms bigint, lock_id bigint
) LANGUAGE plpgsql AS $$
BEGIN
    -- The setting: the server notices when the client is gone; its statement would run on and hold its locks. A condition is
    -- evaluated directly, where PERFORM would be a query.
    IF set_config('client_connection_check_interval', '1000', true) IS NOT NULL AND pg_try_advisory_xact_lock(lock_id) THEN
        INSERT INTO effectively_claims (id, scope, attempt, fingerprint, gate, expires_at)
        VALUES (claim_id, claim_scope, claim_attempt, claim_fingerprint, 1, now() + retention_ms * interval '1 millisecond')
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RAISE EXCEPTION 'effectively: key already claimed, its outcome will be replayed' USING ERRCODE = 'ZE001';
END
$$;

-- The fence in one message with COMMIT: closes the open claim of this attempt or raises. An UPDATE of no row would let COMMIT go on.
CREATE PROCEDURE effectively_complete_or_raise (claim_id bytea, claim_attempt bytea, claim_outcome bytea)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE effectively_claims SET outcome = claim_outcome, gate = NULL
    WHERE id = claim_id AND attempt = claim_attempt AND gate = 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'effectively: the transaction is not the one that claimed the key' USING ERRCODE = 'ZE002';
    END IF;
END
$$;
