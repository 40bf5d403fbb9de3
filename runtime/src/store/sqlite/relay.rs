//! The relay: reading what is due, settling.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{Connection, Sqlite, SqliteConnection, raw_sql};
use uuid::Uuid;

use super::{Envelope, Sql, dead_letters, leases::still_held, outbox, published};
use crate::store::topics;
use crate::store::{
    leases::{Fence, Lease, ttl_ms},
    relay::{
        Backlog, DeadLetter, Due, MANY_TOPICS, Postponed, RelayVerbs, by_partition, list, number,
    },
};

impl RelayVerbs for Sqlite {
    async fn promote(
        conn: &mut SqliteConnection,
        sql: &Sql,
        fence: Fence<'_>,
    ) -> sqlx::Result<u64> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no \
             WHERE partition_no < 0 AND available_at <= {{now}} AND -1 - partition_no IN ({})",
            still_held(fence)
        );
        let done = raw_sql(sql.fill(&statement)).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn due(
        conn: &mut SqliteConnection,
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
        // With `+` the index of partitions, which leads to all that waits in one, is not looked at.
        filter.push_str(&format!(
            " AND NOT EXISTS (SELECT 1 FROM {{outbox}} AS w WHERE w.partition_key = o.partition_key AND w.attempts > 0 \
             AND w.passable = 0 AND +w.partition_no = -1 - o.partition_no AND (w.topic = o.topic OR {waits} = {route}))"
        ));
        let columns = outbox::ENVELOPE;
        let first = |partition: u16, topic: &str| {
            format!(
                "SELECT * FROM (SELECT {columns} FROM {{outbox}} AS o WHERE o.partition_no = {partition}{topic}{filter} ORDER BY o.id LIMIT {})",
                due.per_partition
            )
        };
        let mut bound = Vec::new();
        let mut each = Vec::new();
        for partition in due.partitions {
            let Some(topics) = &by_topic else {
                each.push(first(*partition, ""));
                continue;
            };
            let Some(topics) = topics.get(partition) else {
                continue;
            };
            bound.extend(topics);
            let of_each = vec![first(*partition, " AND o.topic = ?"); topics.len()];
            // The first of each topic, and of those the first: the order of a route that has several topics is kept.
            each.push(format!(
                "SELECT * FROM (SELECT * FROM ({}) ORDER BY id LIMIT {})",
                of_each.join(" UNION ALL "),
                due.per_partition
            ));
        }
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let statement = format!("{} LIMIT {}", each.join(" UNION ALL "), due.limit);
        let mut query = sqlx::query(sql.fill(&statement)).persistent(false);
        for topic in bound {
            query = query.bind(topic.clone());
        }
        let rows = query.fetch_all(conn).await?;
        rows.iter().map(outbox::envelope_of).collect()
    }

    async fn settle(
        conn: &mut SqliteConnection,
        sql: &Sql,
        fence: Fence<'_>,
        events: &[(u16, i64)],
        keep: Option<Duration>,
    ) -> sqlx::Result<u64> {
        let settled = format!(
            "id IN ({}) AND partition_no IN ({})",
            list(events.iter().map(|(_, id)| *id)),
            still_held(fence)
        );
        let remove = sql.fill(&format!("DELETE FROM {{outbox}} WHERE {settled}"));
        let Some(keep) = keep else {
            return Ok(raw_sql(remove).execute(conn).await?.rows_affected());
        };
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        published::keep(&mut tx, sql, &settled, keep).await?;
        crate::fault::point("after_keep").await?;
        let done = raw_sql(remove).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn purge_published(
        conn: &mut SqliteConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<u64> {
        published::purge(conn, sql, limit).await
    }

    async fn postpone(
        conn: &mut SqliteConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> sqlx::Result<bool> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no, available_at = {{now}} + ?, \
             attempts = min(attempts + 1, 32767), last_error = ?, passable = ? WHERE partition_no = ? AND id = ? AND partition_no IN ({})",
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
        conn: &mut SqliteConnection,
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
        conn: &mut SqliteConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<Option<u16>> {
        let statement = format!(
            "UPDATE {{outbox}} SET crashes = CASE WHEN suspected_by = ? THEN crashes ELSE min(crashes + 1, 1000) END, \
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
        conn: &mut SqliteConnection,
        sql: &Sql,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<()> {
        let statement = sql.fill(
            "UPDATE {outbox} SET crashes = max(crashes - 1, 0), suspected_by = NULL \
             WHERE partition_no = ? AND id = ? AND suspected_by = ?",
        );
        let query = sqlx::query(statement).bind(number(lease.partition));
        let query = query.bind(outbox_id).bind(lease.epoch);
        query.execute(conn).await.map(drop)
    }

    async fn notify(_: &mut SqliteConnection, _: &Sql) -> sqlx::Result<bool> {
        Ok(false)
    }

    async fn dead_letters(
        conn: &mut SqliteConnection,
        sql: &Sql,
        after: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<DeadLetter>> {
        dead_letters::list(conn, sql, after, limit).await
    }

    async fn retry(conn: &mut SqliteConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::retry(conn, sql, id).await
    }

    async fn discard(conn: &mut SqliteConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::discard(conn, sql, id).await
    }

    async fn backlog(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Backlog> {
        dead_letters::backlog(conn, sql).await
    }
}

fn literal(hex: &str) -> String {
    format!("CAST(x'{hex}' AS TEXT)")
}

/// The topics of each partition that may be read; from one topic to the next, whatever stands between. `None`: there are so many
/// that each by itself would take longer than all together.
async fn readable_topics(
    conn: &mut SqliteConnection,
    sql: &Sql,
    due: &Due<'_>,
) -> sqlx::Result<Option<BTreeMap<u16, Vec<String>>>> {
    let least = |partition: &u16| {
        format!(
            "SELECT {partition}, (SELECT min(topic) FROM {{outbox}} WHERE partition_no = {partition})"
        )
    };
    let least: Vec<_> = due.partitions.iter().map(least).collect();
    let statement = format!(
        "WITH RECURSIVE t (p, name) AS ({} UNION ALL \
         SELECT t.p, (SELECT min(o.topic) FROM {{outbox}} AS o WHERE o.partition_no = t.p AND o.topic > t.name) \
         FROM t WHERE t.name IS NOT NULL) SELECT p, name, name FROM t WHERE name IS NOT NULL LIMIT {}",
        least.join(" UNION ALL "),
        MANY_TOPICS + 1
    );
    let found = sqlx::query_as(sql.fill(&statement)).persistent(false);
    let found: Vec<(i64, String, Option<String>)> = found.fetch_all(conn).await?;
    let topics = by_partition(found, due);
    Ok(topics.filter(|of| of.values().all(|topics| topics.len() <= MOST_TERMS)))
}

/// A SELECT has one term for each topic of a partition, and SQLite takes 500.
const MOST_TERMS: usize = 400;
