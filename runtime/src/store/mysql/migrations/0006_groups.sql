-- Tables of `effectively`, version 6: relays with different routes share one outbox.

-- All relays with the same routes are a group, and each group has leases of its own. 0: of no group yet.
ALTER TABLE effectively_leases ADD COLUMN group_no BIGINT NOT NULL DEFAULT 0, DROP PRIMARY KEY, ADD PRIMARY KEY (partition_no, group_no);

-- Null: a relay of an earlier version, which takes any lease and publishes any topic. The routes are a JSON list of topics.
ALTER TABLE effectively_relays ADD COLUMN group_no BIGINT, ADD COLUMN routes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The topics of a partition, by their hashes, and the events of each in their order. Where many events wait for a relay of another
-- group, or for a sink that is down, reading all that stand before those of the other topics would take longer and longer.
ALTER TABLE effectively_outbox
    ADD COLUMN topic_no BIGINT AS (CAST(CONV(LEFT(SHA2(topic, 256), 15), 16, 10) AS SIGNED)) VIRTUAL,
    ADD INDEX topics (partition_no, topic_no, id);
