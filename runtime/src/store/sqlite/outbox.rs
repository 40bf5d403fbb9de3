//! The outbox: rows staged with the fence, and reading them back.

use sqlx::{AssertSqlSafe, Row, SqliteConnection, sqlite::SqliteRow};

use super::{Completion, Envelope, NOW, Sql};
use crate::store::{headers_json, headers_of, millis, partition_of, source};

pub(super) const PENDING: &str = "SELECT count(*) FROM {outbox}";

/// What [`envelope_of`] reads, in its order.
pub(super) const ENVELOPE: &str = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, \
     created_at, attempts";

pub(super) const READ: &str = "SELECT {envelope} FROM {outbox} \
     WHERE available_at <= {now} ORDER BY id LIMIT ?";

pub(super) const REMOVE: &str = "DELETE FROM {outbox} WHERE id = ?";

const COLUMNS: &str = "(event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at, available_at)";

/// Nine values per row, and a statement takes at most 32,766.
const ROWS_PER_STATEMENT: usize = 3600;
/// Longer statements are not kept in the connection's cache, where they would push out others.
const CACHED_ROWS: usize = 8;

pub(super) async fn stage(
    conn: &mut SqliteConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> sqlx::Result<()> {
    let mut ids = end.event_ids();
    for events in end.chunks(ROWS_PER_STATEMENT) {
        let row = format!("(?, ?, ?, ?, ?, ?, ?, ?, {NOW}, {NOW} + ?)");
        let text = format!(
            "INSERT INTO {} {COLUMNS} VALUES {}",
            sql.outbox,
            vec![row; events.len()].join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(events.len() <= CACHED_ROWS);
        for (event, id) in events.iter().zip(&mut ids) {
            query = query
                .bind(id)
                .bind(&*event.topic)
                .bind(&*event.name)
                .bind(event.partition_key.as_deref())
                .bind(event.partition(id))
                .bind(event.data.as_slice())
                .bind(headers_json(&event.headers))
                .bind(end.traceparent)
                .bind(event.delay_ms());
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

pub(super) async fn pending(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql.pending.sql()).fetch_one(conn).await
}

pub(super) async fn read(
    conn: &mut SqliteConnection,
    sql: &Sql,
    limit: i64,
) -> sqlx::Result<Vec<Envelope>> {
    let rows = sqlx::query(sql.read.sql())
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter().map(envelope_of).collect()
}

pub(super) async fn remove(
    conn: &mut SqliteConnection,
    sql: &Sql,
    event: &Envelope,
) -> sqlx::Result<()> {
    sqlx::query(sql.remove.sql())
        .bind(event.outbox_id)
        .execute(conn)
        .await
        .map(drop)
}

pub(super) fn envelope_of(row: &SqliteRow) -> sqlx::Result<Envelope> {
    Ok(Envelope {
        outbox_id: row.try_get(0)?,
        id: row.try_get(1)?,
        topic: row.try_get(2)?,
        name: row.try_get(3)?,
        partition_key: row.try_get(4)?,
        partition: partition_of(row.try_get(5)?),
        data: row.try_get(6)?,
        headers: headers_of(row.try_get(7)?),
        traceparent: row.try_get(8)?,
        staged_at: millis(row.try_get(9)?),
        attempts: row.try_get::<i16, _>(10)?.unsigned_abs(),
        source: source(),
        database: uuid::Uuid::nil(),
    })
}
