//! Published events that are kept for a while.

use std::time::Duration;

use sqlx::{MySqlConnection, raw_sql};

use super::Sql;
use crate::store::leases::ttl_ms;

/// Copies these events, which are removed next. A lease that ends in between leaves them in both tables: they are published,
/// and published again. `settled`: the rows `o` of the outbox, and the condition on them.
pub(super) async fn keep(
    conn: &mut MySqlConnection,
    sql: &Sql,
    settled: &str,
    keep: Duration,
) -> sqlx::Result<()> {
    let until = format!("{{now}} + INTERVAL {} * 1000 MICROSECOND", ttl_ms(keep));
    let statement = format!(
        "INSERT INTO {{published}} (id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, \
         created_at, published_at, expires_at) SELECT o.id, o.event_id, o.topic, o.type, o.partition_key, o.partition_no, \
         o.data, o.headers, o.traceparent, o.created_at, {{now}}, {until} FROM {settled} \
         ON DUPLICATE KEY UPDATE published_at = {{now}}, expires_at = {until}"
    );
    raw_sql(sql.fill(&statement)).execute(conn).await.map(drop)
}

pub(super) async fn purge(conn: &mut MySqlConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    let statement =
        sql.fill("DELETE FROM {published} WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?");
    let done = sqlx::query(statement).bind(limit).execute(conn).await?;
    Ok(done.rows_affected())
}
