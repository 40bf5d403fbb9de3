-- Tables of `effectively`, version 5: an event that waits to be tried again holds up its key on its own route, and no other.

-- Whether later events of its key may pass it while it waits to be tried again.
ALTER TABLE effectively_outbox ADD COLUMN passable boolean NOT NULL DEFAULT false;
-- An earlier relay counted every try, whether it was under way when the relay died or not.
UPDATE effectively_outbox SET crashes = 0 WHERE crashes > 0;
-- The epoch of the lease under which it alone was last being published. `crashes` counts each lease once.
ALTER TABLE effectively_outbox ADD COLUMN suspected_by bigint;

-- A key is parked while an event of it waits that may not be passed. By its hash: an index takes no text of any length.
-- `<>`, since `>` would offer the planner the index of version 2, which leads to all that waits.
CREATE INDEX effectively_outbox_parked ON effectively_outbox (hashtextextended(partition_key, 0))
WHERE attempts <> 0 AND NOT passable;

-- The first events of each partition that may be read, in their order. The first of `topics` that takes a topic says whether its
-- events are readable; without `topics` all are. Two topics are of one route when the first of `routes` that takes either takes both.
-- Nothing but the index of parked keys can find the event that waits: OFFSET 0 keeps the subquery apart, and its partition is
-- written in a form that no other index serves.
CREATE FUNCTION effectively_due (
    of_partitions smallint[], per_partition bigint, at_most bigint, topics text[], readable boolean[], routes text[]
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
        WHERE o.partition_no = p.no
        AND CASE WHEN cardinality(topics) = 0 THEN true ELSE (
            SELECT t.may FROM unnest(topics, readable) WITH ORDINALITY AS t (beginning, may, place)
            WHERE o.topic LIKE t.beginning ORDER BY t.place LIMIT 1) END
        AND NOT EXISTS (
            SELECT FROM effectively_outbox AS w
            WHERE hashtextextended(w.partition_key, 0) = hashtextextended(o.partition_key, 0)
            AND w.attempts <> 0 AND NOT w.passable
            AND -1 - w.partition_no = o.partition_no AND w.partition_key = o.partition_key
            AND CASE WHEN w.topic = o.topic THEN true ELSE (
                SELECT w.topic LIKE r.beginning AND o.topic LIKE r.beginning
                FROM unnest(routes) WITH ORDINALITY AS r (beginning, place)
                WHERE w.topic LIKE r.beginning OR o.topic LIKE r.beginning ORDER BY r.place LIMIT 1) END
            OFFSET 0)
        ORDER BY o.id LIMIT per_partition
    ) AS e LIMIT at_most;
END
$$;

-- The form of version 2, for relays that have not been replaced yet.
CREATE OR REPLACE FUNCTION effectively_due (
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
CREATE OR REPLACE FUNCTION effectively_settle_and_keep (
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
