-- Tables of `effectively`, version 2: what the relay works with.

-- How often a sink has rejected it.
ALTER TABLE effectively_outbox ADD COLUMN attempts smallint NOT NULL DEFAULT 0;
-- How often a relay died while this event alone was being published.
ALTER TABLE effectively_outbox ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
ALTER TABLE effectively_outbox ADD COLUMN last_error text;

-- An event that may not be published yet waits in partition -1 - p. What stands in partition p is due, so that a relay which
-- reads it never steps over delayed events.
UPDATE effectively_outbox SET partition_no = -1 - partition_no WHERE available_at > now();

CREATE INDEX effectively_outbox_waiting ON effectively_outbox (available_at) WHERE partition_no < 0;

-- Events that will not be published by themselves.
CREATE TABLE effectively_dead_letters (
    -- Its place in the outbox, where it returns to when it is retried.
    id            bigint      PRIMARY KEY,
    event_id      uuid        NOT NULL,
    topic         text        NOT NULL,
    type          text        NOT NULL,
    partition_key text,
    partition_no  smallint    NOT NULL,
    data          bytea       NOT NULL,
    headers       text,
    traceparent   text,
    created_at    timestamptz NOT NULL,
    attempts      smallint    NOT NULL,
    -- Why the last attempt failed.
    error         text        NOT NULL,
    failed_at     timestamptz NOT NULL DEFAULT now()
);

-- Who may publish the events of a partition. A relay whose lease has ended settles nothing: the epoch is not its own any more.
CREATE TABLE effectively_leases (
    partition_no smallint    PRIMARY KEY,
    -- The relay. Null: given up in order.
    holder       uuid,
    -- Grows with each holder.
    epoch        bigint      NOT NULL DEFAULT 0,
    expires_at   timestamptz NOT NULL DEFAULT now(),
    -- How many holders in a row have died with it.
    deaths       smallint    NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

INSERT INTO effectively_leases (partition_no) SELECT generate_series(0, 63);

-- The relays that are alive, so that each takes its share of the partitions.
CREATE TABLE effectively_relays (
    id         uuid        PRIMARY KEY,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
