//! Published events that are kept for a while.

use std::time::Duration;

use sqlx::{SqliteConnection, raw_sql};

use super::Sql;
use crate::store::leases::ttl_ms;

/// Copies these events, which are removed next. `settled`: the condition on the rows of the outbox.
pub(super) async fn keep(
    conn: &mut SqliteConnection,
    sql: &Sql,
    settled: &str,
    keep: Duration,
) -> sqlx::Result<()> {
    const KEPT: &str = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at";
    let statement = format!(
        "INSERT INTO {{published}} ({KEPT}, published_at, expires_at) \
         SELECT {KEPT}, {{now}}, {{now}} + {} FROM {{outbox}} WHERE {settled} \
         ON CONFLICT (id, event_id) DO UPDATE SET published_at = excluded.published_at, expires_at = excluded.expires_at",
        ttl_ms(keep)
    );
    raw_sql(sql.fill(&statement)).execute(conn).await.map(drop)
}

pub(super) async fn purge(conn: &mut SqliteConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    let statement = sql.fill(
        "DELETE FROM {published} WHERE rowid IN \
         (SELECT rowid FROM {published} WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?)",
    );
    let done = sqlx::query(statement).bind(limit).execute(conn).await?;
    Ok(done.rows_affected())
}
