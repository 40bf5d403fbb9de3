//! The relay: reading what is due, settling.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{Connection, MySql, MySqlConnection, raw_sql};
use uuid::Uuid;

use super::{Envelope, Sql, dead_letters, leases::still_held, outbox, published};
use crate::store::topics;
use crate::store::{
    leases::{Fence, Lease, binary, holding, ttl_ms},
    relay::{
        Backlog, DeadLetter, Due, Postponed, RelayVerbs, by_partition, list, number, waiting_room,
    },
};

impl RelayVerbs for MySql {
    async fn put_right(conn: &mut MySqlConnection) -> sqlx::Result<bool> {
        super::put_right(conn).await
    }

    async fn put_back(conn: &mut MySqlConnection) -> sqlx::Result<()> {
        super::put_back(conn).await
    }

    async fn promote(conn: &mut MySqlConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<u64> {
        // Read first, without locks: a locking scan would wait for every call that is just inserting a delayed event.
        let rooms = fence
            .leases
            .iter()
            .map(|lease| waiting_room(lease.partition));
        let due = format!(
            "SELECT partition_no, id FROM {{outbox}} WHERE partition_no IN ({}) AND available_at <= {{now}} LIMIT 1000",
            list(rooms.map(i64::from))
        );
        let due = sqlx::query_as::<_, (i16, i64)>(sql.fill(&due)).persistent(false);
        let due = due.fetch_all(&mut *conn).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let statement = format!(
            "UPDATE {} SET o.partition_no = -1 - o.partition_no WHERE {}",
            by_key("-1 - e.p", due.into_iter()),
            holding(fence, "{now}", &binary(fence.relay))
        );
        let done = raw_sql(sql.fill(&statement)).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn parked(
        conn: &mut MySqlConnection,
        sql: &Sql,
        partitions: &[u16],
    ) -> sqlx::Result<Vec<u16>> {
        let of_one = |partition: &u16| {
            format!(
                "(SELECT partition_no FROM {{outbox}} FORCE INDEX (parked) WHERE partition_no = {} AND parked IS NOT NULL LIMIT 1)",
                waiting_room(*partition)
            )
        };
        let each: Vec<_> = partitions.iter().map(of_one).collect();
        let query = sqlx::query_scalar(sql.fill(&each.join(" UNION ALL "))).persistent(false);
        let rooms: Vec<i16> = query.fetch_all(conn).await?;
        Ok(rooms.into_iter().map(crate::store::partition_of).collect())
    }

    async fn due(
        conn: &mut MySqlConnection,
        sql: &Sql,
        due: Due<'_>,
    ) -> sqlx::Result<Vec<Envelope>> {
        // Only where something is left out does it pay to go from topic to topic.
        let by_topic = match due.topics {
            [] => None,
            _ => readable_topics(&mut *conn, sql, &due).await?,
        };
        let mut filter = String::new();
        if by_topic.is_none() && !due.topics.is_empty() {
            let readable = topics::readable("o.topic", due.topics, literal);
            filter = format!(" AND {readable} = 1");
        }
        let [waits, route] =
            ["w.topic", "o.topic"].map(|topic| topics::place(topic, due.routes, literal));
        // A subquery that a LIMIT keeps from being made a join: it looks its one row up by the hash. Each costs the server about
        // as much as a branch does, so it stands where it has something to find.
        let behind_parked = |partition: u16| {
            format!(
                " AND (SELECT 1 FROM {{outbox}} AS w FORCE INDEX (parked) WHERE w.partition_no = {} \
                 AND w.parked = UNHEX(SHA2(o.partition_key, 256)) AND {waits} = {route} LIMIT 1) IS NULL",
                waiting_room(partition)
            )
        };
        let columns = outbox::ENVELOPE;
        let first = |index, partition: u16, topic: &str| {
            let parked = match due.parked.contains(&partition) {
                true => behind_parked(partition),
                false => String::new(),
            };
            format!(
                "(SELECT {columns} FROM {{outbox}} AS o FORCE INDEX ({index}) \
                 WHERE o.partition_no = {partition}{topic}{filter}{parked} ORDER BY o.id LIMIT {})",
                due.per_partition
            )
        };
        let of_one = |partition: &u16| {
            let Some(topics) = &by_topic else {
                return Some(first("PRIMARY", *partition, ""));
            };
            let of_topic =
                |topic: &i64| first("topics", *partition, &format!(" AND o.topic_no = {topic}"));
            let each: Vec<_> = topics.get(partition)?.iter().map(of_topic).collect();
            // The first of each topic, and of those the first: the order of a route that has several topics is kept.
            Some(format!(
                "(SELECT * FROM ({}) AS t ORDER BY id LIMIT {})",
                each.join(" UNION ALL "),
                due.per_partition
            ))
        };
        let each: Vec<_> = due.partitions.iter().filter_map(of_one).collect();
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = format!("{} LIMIT {}", each.join(" UNION ALL "), due.limit);
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let rows = query.fetch_all(conn).await?;
        rows.iter().map(outbox::envelope_of).collect()
    }

    async fn settle(
        conn: &mut MySqlConnection,
        sql: &Sql,
        fence: Fence<'_>,
        events: &[(u16, i64)],
        keep: Option<Duration>,
    ) -> sqlx::Result<u64> {
        let rows = events
            .iter()
            .map(|(partition, id)| (number(*partition), *id));
        let settled = format!(
            "{} WHERE {}",
            by_key("e.p", rows),
            holding(fence, "{now}", &binary(fence.relay))
        );
        let remove = sql.fill(&format!("DELETE o FROM {settled}"));
        let Some(keep) = keep else {
            return Ok(raw_sql(remove).execute(conn).await?.rows_affected());
        };
        let mut tx = conn.begin().await?;
        published::keep(&mut tx, sql, &settled, keep).await?;
        crate::fault::point("after_keep").await?;
        let done = raw_sql(remove).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn purge_published(
        conn: &mut MySqlConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<u64> {
        published::purge(conn, sql, limit).await
    }

    async fn postpone(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> sqlx::Result<bool> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no, available_at = {{now}} + INTERVAL ? * 1000 MICROSECOND, \
             attempts = LEAST(attempts + 1, 32767), last_error = ?, passable = ? WHERE partition_no = ? AND id = ? AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(ttl_ms(how.delay)).bind(how.reason.to_owned());
        let query = query.bind(how.passable).bind(number(lease.partition));
        let query = query.bind(outbox_id);
        Ok(query.execute(conn).await?.rows_affected() == 1)
    }

    async fn bury(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        reason: &str,
    ) -> sqlx::Result<bool> {
        let held = still_held(Fence {
            relay,
            leases: &[lease],
        });
        dead_letters::bury(conn, sql, lease, outbox_id, reason, &held).await
    }

    async fn suspect(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<Option<u16>> {
        let statement = format!(
            "UPDATE {{outbox}} SET crashes = CASE WHEN suspected_by = ? THEN crashes ELSE LEAST(crashes + 1, 1000) END, \
             suspected_by = ? WHERE partition_no = ? AND id = ? AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(lease.epoch).bind(lease.epoch);
        let query = query.bind(number(lease.partition)).bind(outbox_id);
        if query.execute(&mut *conn).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let crashes = sql.fill("SELECT crashes FROM {outbox} WHERE id = ?");
        let crashes: Option<i16> = sqlx::query_scalar(crashes)
            .bind(outbox_id)
            .fetch_optional(conn)
            .await?;
        Ok(crashes.map(i16::unsigned_abs))
    }

    async fn acquit(
        conn: &mut MySqlConnection,
        sql: &Sql,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<()> {
        let statement = sql.fill(
            "UPDATE {outbox} SET crashes = GREATEST(crashes - 1, 0), suspected_by = NULL \
             WHERE partition_no = ? AND id = ? AND suspected_by = ?",
        );
        let query = sqlx::query(statement).bind(number(lease.partition));
        let query = query.bind(outbox_id).bind(lease.epoch);
        query.execute(conn).await.map(drop)
    }

    async fn notify(_: &mut MySqlConnection, _: &Sql) -> sqlx::Result<bool> {
        Ok(false)
    }

    async fn dead_letters(
        conn: &mut MySqlConnection,
        sql: &Sql,
        after: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<DeadLetter>> {
        dead_letters::list(conn, sql, after, limit).await
    }

    async fn retry(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::retry(conn, sql, id).await
    }

    async fn discard(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::discard(conn, sql, id).await
    }

    async fn backlog(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Backlog> {
        dead_letters::backlog(conn, sql).await
    }
}

/// These rows `o`, each by its whole primary key, with the lease `l` of their partition. In this order, whatever the statistics
/// say: a scan, also of another index, would wait for the rows of calls that have not committed yet, and lock the gaps that
/// others insert into.
fn by_key(partition: &str, rows: impl Iterator<Item = (i16, i64)>) -> String {
    let rows: Vec<_> = rows
        .map(|(partition_no, id)| format!("[{partition_no},{id}]"))
        .collect();
    format!(
        "JSON_TABLE('[{}]', '$[*]' COLUMNS (p SMALLINT PATH '$[0]', i BIGINT PATH '$[1]')) AS e \
         STRAIGHT_JOIN {{leases}} AS l ON l.partition_no = {partition} \
         STRAIGHT_JOIN {{outbox}} AS o FORCE INDEX (PRIMARY) ON o.partition_no = e.p AND o.id = e.i",
        rows.join(",")
    )
}

/// Bytes, so that every byte of a topic counts: the collation of text passes over spaces at its end.
fn literal(hex: &str) -> String {
    format!("x'{hex}'")
}

/// The topics of each partition that may be read, by their hashes; from one topic to the next, whatever stands between. `None`:
/// there are so many that each by itself would take longer than all together.
async fn readable_topics(
    conn: &mut MySqlConnection,
    sql: &Sql,
    due: &Due<'_>,
) -> sqlx::Result<Option<BTreeMap<u16, Vec<i64>>>> {
    const ROUNDS: usize = 32;
    let mut all = Vec::new();
    // The hashes are not negative.
    let mut after: Vec<(i64, i64)> = due.partitions.iter().map(|p| (i64::from(*p), -1)).collect();
    for _ in 0..ROUNDS {
        // With both in the text the server looks for the least and reads no other. A recursive query would read all.
        let next = after.iter().map(|(partition, topic)| {
            format!(
                "SELECT {partition} AS p, (SELECT MIN(topic_no) FROM {{outbox}} FORCE INDEX (topics) \
                 WHERE partition_no = {partition} AND topic_no > {topic}) AS n"
            )
        });
        let next: Vec<_> = next.collect();
        let statement = format!(
            "SELECT t.p, t.n, (SELECT o.topic FROM {{outbox}} AS o FORCE INDEX (topics) \
             WHERE o.partition_no = t.p AND o.topic_no = t.n LIMIT 1) FROM ({}) AS t WHERE t.n IS NOT NULL",
            next.join(" UNION ALL ")
        );
        let found = sqlx::query_as(sql.fill(&statement)).persistent(false);
        let found: Vec<(i64, i64, Option<String>)> = found.fetch_all(&mut *conn).await?;
        if found.is_empty() {
            return Ok(by_partition(all, due));
        }
        after = found.iter().map(|(p, topic, _)| (*p, *topic)).collect();
        all.extend(found);
    }
    Ok(None)
}
