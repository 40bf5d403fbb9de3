-- Tables of `effectively`, version 3: published events, where a relay is told to keep them.

CREATE TABLE effectively_published (
    -- Its place in the outbox.
    id            bigint      NOT NULL,
    event_id      uuid        NOT NULL,
    topic         text        NOT NULL,
    type          text        NOT NULL,
    partition_key text,
    partition_no  smallint    NOT NULL,
    data          bytea       NOT NULL,
    headers       text,
    traceparent   text,
    created_at    timestamptz NOT NULL,
    published_at  timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    -- Places are given out again when a database is restored from a backup: an old row must not stop the relay.
    PRIMARY KEY (id, event_id)
);

CREATE INDEX effectively_published_expires_at ON effectively_published (expires_at);

-- Removes published events whose lease is still held, and answers how many. The plan is made once per session, perhaps while the
-- outbox is empty, when reading all of it looks cheapest. OFFSET 0 keeps a subquery from being joined in another order, so
-- each lease and each event can only be looked up by its key, and an event only be removed by its place.
CREATE OR REPLACE FUNCTION effectively_settle (relay uuid, partitions smallint[], epochs bigint[], ids bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    settled bigint;
BEGIN
    DELETE FROM effectively_outbox AS o USING (
        SELECT found.place FROM unnest(partitions, epochs, ids) AS e (partition_no, epoch, id),
        LATERAL (SELECT FROM effectively_leases AS l WHERE l.partition_no = e.partition_no AND l.epoch = e.epoch
            AND l.holder = relay AND l.expires_at > now() OFFSET 0) AS held,
        LATERAL (SELECT s.ctid AS place FROM effectively_outbox AS s
            WHERE s.partition_no = e.partition_no AND s.id = e.id OFFSET 0) AS found OFFSET 0
    ) AS settling WHERE o.ctid = settling.place;
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END
$$;

-- The same, and keeps what it removes.
CREATE FUNCTION effectively_settle_and_keep (
    relay uuid, partitions smallint[], epochs bigint[], ids bigint[], keep_ms bigint
) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    settled bigint;
BEGIN
    WITH settled_now AS (
        DELETE FROM effectively_outbox AS o USING (
            SELECT found.place FROM unnest(partitions, epochs, ids) AS e (partition_no, epoch, id),
            LATERAL (SELECT FROM effectively_leases AS l WHERE l.partition_no = e.partition_no AND l.epoch = e.epoch
                AND l.holder = relay AND l.expires_at > now() OFFSET 0) AS held,
            LATERAL (SELECT s.ctid AS place FROM effectively_outbox AS s
                WHERE s.partition_no = e.partition_no AND s.id = e.id OFFSET 0) AS found OFFSET 0
        ) AS settling WHERE o.ctid = settling.place
        RETURNING o.id, o.event_id, o.topic, o.type, o.partition_key, o.partition_no, o.data, o.headers, o.traceparent, o.created_at
    )
    INSERT INTO effectively_published AS p (
        id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at, published_at, expires_at
    )
    SELECT s.*, now(), now() + keep_ms * interval '1 millisecond' FROM settled_now AS s
    ON CONFLICT (id, event_id) DO UPDATE SET published_at = excluded.published_at, expires_at = excluded.expires_at;
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled;
END
$$;
