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
-- What was rejected before is found among any number of events that are only delayed.
CREATE INDEX effectively_outbox_retrying ON effectively_outbox (partition_no) WHERE attempts > 0;

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

-- The two statements of the relay that run all the time are functions, so that the server plans them once per session. The
-- settings keep to the primary keys whatever the tables looked like then: a plan made while the outbox was small would read it
-- from end to end, and the outbox grows as soon as a sink is down. A big outbox makes a plan look dear enough to be compiled, which
-- costs each run more than the run itself.

-- The first events of each partition, in their order.
CREATE FUNCTION effectively_due (
    of_partitions smallint[], per_partition bigint, at_most bigint, without_topics text[], without_keys text[]
) RETURNS TABLE (
    id bigint, event_id uuid, topic text, type text, partition_key text, partition_no smallint, data bytea, headers text,
    traceparent text, created_at timestamptz, attempts smallint
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    -- A nested loop is the only plan of LATERAL, so of each partition the LIMIT takes a beginning.
    RETURN QUERY SELECT e.* FROM unnest(of_partitions) AS p (no), LATERAL (
        SELECT o.id, o.event_id, o.topic, o.type, o.partition_key, o.partition_no, o.data, o.headers, o.traceparent,
        o.created_at, o.attempts FROM effectively_outbox AS o
        WHERE o.partition_no = p.no AND o.topic <> ALL (without_topics)
        AND (o.partition_key IS NULL OR o.partition_key <> ALL (without_keys)) ORDER BY o.id LIMIT per_partition
    ) AS e LIMIT at_most;
END
$$;

-- Removes published events whose lease is still held, and answers how many.
CREATE FUNCTION effectively_settle (relay uuid, partitions smallint[], epochs bigint[], ids bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    settled bigint;
BEGIN
    DELETE FROM effectively_outbox AS o USING unnest(partitions, epochs, ids) AS e (partition_no, epoch, id)
        JOIN effectively_leases AS l ON l.partition_no = e.partition_no AND l.epoch = e.epoch
    WHERE o.partition_no = e.partition_no AND o.id = e.id AND l.holder = relay AND l.expires_at > now();
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END
$$;
