-- Tables of `effectively`, version 6: relays with different routes share one outbox.

-- The topics of a partition, and the events of each in their order. Where many events wait for a relay of another group, or for a
-- sink that is down, reading all that stand before those of the other topics would take longer and longer. No index takes a
-- text of any length, so it has the beginning of a topic.
CREATE INDEX effectively_outbox_topics ON effectively_outbox (partition_no, (left(topic, 200) COLLATE "C"), id);
-- It comes first: it takes long, and relays need the tables below to hold their leases.

-- All relays with the same routes are a group, and each group has leases of its own. 0: of no group yet.
ALTER TABLE effectively_leases ADD COLUMN group_no bigint NOT NULL DEFAULT 0;
ALTER TABLE effectively_leases DROP CONSTRAINT effectively_leases_pkey;
ALTER TABLE effectively_leases ADD PRIMARY KEY (partition_no, group_no);

-- Null: a relay of an earlier version, which takes any lease and publishes any topic.
ALTER TABLE effectively_relays ADD COLUMN group_no bigint;
-- The topics of its routes, a JSON list.
ALTER TABLE effectively_relays ADD COLUMN routes text;

-- What effectively_due answers, read topic by topic.
CREATE FUNCTION effectively_due_by_topic (
    of_partitions smallint[], per_partition bigint, at_most bigint, topics text[], readable boolean[], routes text[]
) RETURNS TABLE (
    id bigint, event_id uuid, topic text, type text, partition_key text, partition_no smallint, data bytea, headers text,
    traceparent text, created_at timestamptz, attempts smallint
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    RETURN QUERY SELECT e.* FROM unnest(of_partitions) AS p (no), LATERAL (
        -- From one topic to the next: what stands between is not read.
        WITH RECURSIVE found (name) AS (
            SELECT (SELECT left(o.topic, 200) COLLATE "C" FROM effectively_outbox AS o
                WHERE o.partition_no = p.no ORDER BY left(o.topic, 200) COLLATE "C" LIMIT 1)
            UNION ALL
            SELECT (SELECT left(o.topic, 200) COLLATE "C" FROM effectively_outbox AS o
                WHERE o.partition_no = p.no AND left(o.topic, 200) COLLATE "C" > t.name
                ORDER BY left(o.topic, 200) COLLATE "C" LIMIT 1)
            FROM found AS t WHERE t.name IS NOT NULL
        )
        -- The first of each topic, and of those the first: the order of a route that has several topics is kept.
        SELECT f.* FROM found AS t, LATERAL (
            SELECT o.id, o.event_id, o.topic, o.type, o.partition_key, o.partition_no, o.data, o.headers, o.traceparent,
            o.created_at, o.attempts FROM effectively_outbox AS o
            WHERE o.partition_no = p.no AND left(o.topic, 200) COLLATE "C" = t.name
            -- A longer topic is judged as a whole, here.
            AND CASE WHEN length(t.name) < 200 THEN true ELSE (
                SELECT r.may FROM unnest(topics, readable) WITH ORDINALITY AS r (beginning, may, place)
                WHERE o.topic LIKE r.beginning ORDER BY r.place LIMIT 1) END
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
        ) AS f
        WHERE CASE WHEN length(t.name) = 200 THEN true ELSE (
            SELECT r.may FROM unnest(topics, readable) WITH ORDINALITY AS r (beginning, may, place)
            WHERE t.name LIKE r.beginning ORDER BY r.place LIMIT 1) END
        ORDER BY f.id LIMIT per_partition
    ) AS e LIMIT at_most;
END
$$;
