//! The relay: reading what is due, settling.

use std::{collections::HashMap, time::Duration};

use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, pool::PoolOptions, postgres::PgListener, raw_sql,
};
use uuid::Uuid;

use super::{Envelope, Sql, dead_letters, leases::still_held, outbox, published};
use crate::store::topics::like;
use crate::store::{
    leases::{Fence, Lease, ttl_ms},
    relay::{Backlog, DeadLetter, Due, Postponed, RelayVerbs, number, numbers},
};

/// The channel of NOTIFY, and what the relay listens to.
const CHANNEL: &str = "effectively_outbox";
const RECONNECT: Duration = Duration::from_secs(1);

/// The functions are of the migration: planned once per session.
pub(super) fn due(function: &str) -> String {
    format!("SELECT {{envelope}} FROM {function}($1, $2, $3, $4, $5, $6)")
}

pub(super) fn settle(function: &str) -> String {
    format!("SELECT {function}($1, $2, $3, $4)")
}

impl RelayVerbs for Postgres {
    async fn promote(conn: &mut PgConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<u64> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no \
             WHERE partition_no < 0 AND available_at <= now() AND -1 - partition_no IN ({})",
            still_held(fence)
        );
        let done = raw_sql(sql.fill(&statement)).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn due(conn: &mut PgConnection, sql: &Sql, due: Due<'_>) -> sqlx::Result<Vec<Envelope>> {
        let (topics, readable): (Vec<String>, Vec<bool>) = due
            .topics
            .iter()
            .map(|(pattern, may)| (like(pattern), *may))
            .unzip();
        let routes: Vec<String> = due.routes.iter().map(like).collect();
        // Only where something is left out does it pay to go from topic to topic.
        let statement = match due.topics {
            [] => &sql.due,
            _ => &sql.due_by_topic,
        };
        let query = sqlx::query(statement.sql())
            .bind(numbers(due.partitions))
            .bind(due.per_partition)
            .bind(due.limit)
            .bind(topics)
            .bind(readable)
            .bind(routes);
        let rows = query.fetch_all(conn).await?;
        rows.iter().map(outbox::envelope_of).collect()
    }

    async fn settle(
        conn: &mut PgConnection,
        sql: &Sql,
        fence: Fence<'_>,
        events: &[(u16, i64)],
        keep: Option<Duration>,
    ) -> sqlx::Result<u64> {
        let epochs: HashMap<u16, i64> = fence
            .leases
            .iter()
            .map(|lease| (lease.partition, lease.epoch))
            .collect();
        let (mut partitions, mut tokens, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, id) in events {
            // An event without a lease stays.
            if let Some(epoch) = epochs.get(partition) {
                partitions.push(number(*partition));
                tokens.push(*epoch);
                ids.push(*id);
            }
        }
        let statement = match keep {
            None => &sql.settle,
            Some(_) => &sql.settle_and_keep,
        };
        let query = sqlx::query_scalar(statement.sql())
            .bind(fence.relay)
            .bind(partitions);
        let mut query = query.bind(tokens).bind(ids);
        if let Some(keep) = keep {
            query = query.bind(ttl_ms(keep));
        }
        let settled: i64 = query.fetch_one(conn).await?;
        Ok(settled.unsigned_abs())
    }

    async fn purge_published(conn: &mut PgConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
        published::purge(conn, sql, limit).await
    }

    async fn postpone(
        conn: &mut PgConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> sqlx::Result<bool> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no, available_at = now() + $3 * interval '1 millisecond', \
             attempts = least(attempts + 1, 32767), last_error = $4, passable = $5 WHERE partition_no = $1 AND id = $2 AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement))
            .persistent(false)
            .bind(number(lease.partition))
            .bind(outbox_id);
        let query = query.bind(ttl_ms(how.delay)).bind(how.reason);
        let query = query.bind(how.passable);
        Ok(query.execute(conn).await?.rows_affected() == 1)
    }

    async fn bury(
        conn: &mut PgConnection,
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
        conn: &mut PgConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<Option<u16>> {
        let statement = format!(
            "UPDATE {{outbox}} SET crashes = CASE WHEN suspected_by = $3 THEN crashes ELSE least(crashes + 1, 1000) END, \
             suspected_by = $3 WHERE partition_no = $1 AND id = $2 AND partition_no IN ({}) RETURNING crashes",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query_scalar(sql.fill(&statement))
            .persistent(false)
            .bind(number(lease.partition))
            .bind(outbox_id)
            .bind(lease.epoch);
        let crashes: Option<i16> = query.fetch_optional(conn).await?;
        Ok(crashes.map(i16::unsigned_abs))
    }

    async fn acquit(
        conn: &mut PgConnection,
        sql: &Sql,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<()> {
        let statement = sql.fill(
            "UPDATE {outbox} SET crashes = greatest(crashes - 1, 0), suspected_by = NULL \
             WHERE partition_no = $1 AND id = $2 AND suspected_by = $3",
        );
        let query = sqlx::query(statement).bind(number(lease.partition));
        let query = query.bind(outbox_id).bind(lease.epoch);
        query.execute(conn).await.map(drop)
    }

    async fn notify(conn: &mut PgConnection, _: &Sql) -> sqlx::Result<bool> {
        let message = AssertSqlSafe(format!("NOTIFY {CHANNEL}"));
        raw_sql(message).execute(conn).await.map(|_| true)
    }

    async fn listen(pool: &PgPool, heard: impl Fn() + Send + Sync) {
        // A connection of its own: one that listens for ever would be missing in the application's pool.
        let own = PoolOptions::new()
            .max_connections(1)
            .connect_lazy_with((*pool.connect_options()).clone());
        loop {
            let mut listener = match PgListener::connect_with(&own).await {
                Ok(listener) => listener,
                Err(_) => {
                    tokio::time::sleep(RECONNECT).await;
                    continue;
                }
            };
            if listener.listen(CHANNEL).await.is_ok() {
                // What was notified before is not known.
                heard();
                while listener.recv().await.is_ok() {
                    heard();
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn dead_letters(
        conn: &mut PgConnection,
        sql: &Sql,
        after: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<DeadLetter>> {
        dead_letters::list(conn, sql, after, limit).await
    }

    async fn retry(conn: &mut PgConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::retry(conn, sql, id).await
    }

    async fn discard(conn: &mut PgConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::discard(conn, sql, id).await
    }

    async fn backlog(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Backlog> {
        dead_letters::backlog(conn, sql).await
    }
}
