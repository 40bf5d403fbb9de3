//! The outbox: rows staged with the fence, and reading them back.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, MySqlConnection, Row, mysql::MySqlRow};

use super::{CLOCK, Completion, Envelope, Sql};
use crate::store::{headers_json, headers_of, hex::Hex, millis, partition_of, source};

pub(super) const PENDING: &str = "SELECT count(*) FROM {outbox}";

/// What [`envelope_of`] reads, in its order.
pub(super) const ENVELOPE: &str = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) DIV 1000, attempts";

pub(super) const READ: &str = "SELECT {envelope} FROM {outbox} \
     WHERE available_at <= {now} ORDER BY id LIMIT ?";

pub(super) const REMOVE: &str = "DELETE FROM {outbox} WHERE id = ?";

const COLUMNS: &str = "(event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at, available_at)";

/// Nine values per row, and a statement takes at most 65,535.
const ROWS_PER_STATEMENT: usize = 7000;
/// Longer statements are not kept in the connection's cache, where they would push out others.
const CACHED_ROWS: usize = 8;

pub(super) async fn stage(
    conn: &mut MySqlConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> sqlx::Result<()> {
    let mut ids = end.event_ids();
    for events in end.chunks(ROWS_PER_STATEMENT) {
        let row = format!("(?, ?, ?, ?, ?, ?, ?, ?, {CLOCK}, {CLOCK} + INTERVAL ? MICROSECOND)");
        let text = format!(
            "INSERT INTO {} {COLUMNS} VALUES {}",
            sql.outbox,
            vec![&*row; events.len()].join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(events.len() <= CACHED_ROWS);
        for (event, id) in events.iter().zip(&mut ids) {
            // Text as bytes: a session that was told `SET NAMES latin1` would take it for something else.
            query = query
                .bind(id)
                .bind(event.topic.as_bytes())
                .bind(event.name.as_bytes())
                .bind(event.partition_key.as_deref().map(str::as_bytes))
                .bind(event.partition(id))
                .bind(event.data.as_slice())
                .bind(headers_json(&event.headers).map(String::into_bytes))
                .bind(end.traceparent.map(str::as_bytes))
                .bind(event.delay_ms().saturating_mul(1000));
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

/// The rows as hex text, for ledgers built with `payload_literals(true)`. Empty when there are none.
pub(super) fn literal_rows(table: &str, end: &Completion<'_>) -> String {
    let mut sql = String::new();
    let text = |text: &str| format!("CONVERT(x'{}' USING utf8mb4)", Hex(text.as_bytes()));
    let optional = |value: Option<&str>| value.map_or_else(|| "NULL".to_owned(), text);
    for (event, id) in end.events.iter().zip(end.event_ids()) {
        let head = if sql.is_empty() {
            format!("INSERT INTO {table} {COLUMNS} VALUES ")
        } else {
            ", ".to_owned()
        };
        // Writing to a String does not fail.
        let _ = write!(
            sql,
            "{head}(x'{}', {}, {}, {}, {}, x'{}', {}, {}, {CLOCK}, {CLOCK} + INTERVAL {} MICROSECOND)",
            Hex(id.as_bytes()),
            text(&event.topic),
            text(&event.name),
            optional(event.partition_key.as_deref()),
            event.partition(id),
            Hex(&event.data),
            optional(headers_json(&event.headers).as_deref()),
            optional(end.traceparent),
            event.delay_ms().saturating_mul(1000),
        );
    }
    if !sql.is_empty() {
        sql.push_str("; ");
    }
    sql
}

pub(super) async fn pending(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql.pending.sql()).fetch_one(conn).await
}

pub(super) async fn read(
    conn: &mut MySqlConnection,
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
    conn: &mut MySqlConnection,
    sql: &Sql,
    event: &Envelope,
) -> sqlx::Result<()> {
    sqlx::query(sql.remove.sql())
        .bind(event.outbox_id)
        .execute(conn)
        .await
        .map(drop)
}

pub(super) fn envelope_of(row: &MySqlRow) -> sqlx::Result<Envelope> {
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
