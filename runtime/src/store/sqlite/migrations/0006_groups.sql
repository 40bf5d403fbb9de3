-- Tables of `effectively`, version 6: relays with different routes share one outbox.

-- All relays with the same routes are a group, and each group has leases of its own. SQLite changes no primary key.
ALTER TABLE effectively_leases RENAME TO effectively_leases_of_all;
CREATE TABLE effectively_leases (
    partition_no INTEGER NOT NULL,
    -- 0: of no group yet.
    group_no     INTEGER NOT NULL DEFAULT 0,
    -- The relay. Null: given up in order.
    holder       BLOB,
    -- Grows with each holder.
    epoch        INTEGER NOT NULL DEFAULT 0,
    expires_at   INTEGER NOT NULL DEFAULT 0,
    -- How many holders in a row have died with it.
    deaths       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (partition_no, group_no)
) WITHOUT ROWID;
INSERT INTO effectively_leases (partition_no, holder, epoch, expires_at, deaths)
SELECT partition_no, holder, epoch, expires_at, deaths FROM effectively_leases_of_all;
DROP TABLE effectively_leases_of_all;

-- Null: a relay of an earlier version, which takes any lease and publishes any topic.
ALTER TABLE effectively_relays ADD COLUMN group_no INTEGER;
-- The topics of its routes, a JSON list.
ALTER TABLE effectively_relays ADD COLUMN routes TEXT;

-- The topics of a partition, and the events of each in their order. Where many events wait for a relay of another group, or for a
-- sink that is down, reading all that stand before those of the other topics would take longer and longer.
CREATE INDEX effectively_outbox_topics ON effectively_outbox (partition_no, topic, id);
