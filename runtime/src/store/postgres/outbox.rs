//! The outbox: rows staged with the fence, and reading them back.

use std::fmt::Write;

use sqlx::{PgConnection, Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query};
use uuid::Uuid;

use super::{
    Attempt, Completion, Envelope, Isolation, NOTICE_LOST_CLIENT, Sql, Staged, begin_at,
    begin_with, claims,
};
use crate::model::PARTITIONS;
use crate::store::{
    headers_json, headers_of,
    hex::Hex,
    millis, partition_of,
    relay::{number, waiting_room},
    source,
};

pub(super) const PENDING: &str = "SELECT count(*) FROM {outbox}";

/// What [`envelope_of`] reads, in its order.
pub(super) const ENVELOPE: &str = "id, event_id, topic, type, partition_key, partition_no, data, headers, traceparent, \
     (extract(epoch FROM created_at) * 1000)::bigint, attempts";

/// The first of the firsts: an index leads to the beginning of each partition and each waiting room, none to the first id of all.
pub(super) fn first() -> String {
    format!(
        "SELECT {{envelope}} FROM generate_series({}, {}) AS p (no), LATERAL (SELECT * FROM {{outbox}} \
         WHERE partition_no = p.no AND available_at <= now() ORDER BY id LIMIT $1) AS first ORDER BY id LIMIT $1",
        -PARTITIONS,
        PARTITIONS - 1
    )
}

/// By the primary key, where the event stands now or stood when it was read: a relay may have moved it.
pub(super) const REMOVE: &str = "DELETE FROM {outbox} WHERE partition_no IN ($1, $2) AND id = $3";

const COLUMNS: &str = "(event_id, topic, type, partition_key, partition_no, data, headers, available_at, traceparent)";

/// Inserts all events of a call in their order, from arrays that begin at parameter `first`, if `fence` has a row.
pub(super) fn stage(first: usize) -> String {
    let [id, topic, name, key, no, data, headers, delay, trace] =
        std::array::from_fn(|place| first + place);
    format!(
        "INSERT INTO {{outbox}} {COLUMNS} \
         SELECT e.event_id, e.topic, e.type, e.partition_key, e.partition_no, e.data, e.headers, \
         now() + e.delay * interval '1 millisecond', ${trace} \
         FROM fence, unnest(${id}::uuid[], ${topic}::text[], ${name}::text[], ${key}::text[], ${no}::smallint[], ${data}::bytea[], \
         ${headers}::text[], ${delay}::bigint[]) WITH ORDINALITY \
         AS e (event_id, topic, type, partition_key, partition_no, data, headers, delay, ordinal) ORDER BY e.ordinal"
    )
}

/// Inserts one event, from scalars that begin at parameter `first`: most calls have one, and arrays cost the server more.
pub(super) fn stage_one(first: usize) -> String {
    let [id, topic, name, key, no, data, headers, delay, trace] =
        std::array::from_fn(|place| first + place);
    format!(
        "INSERT INTO {{outbox}} {COLUMNS} \
         SELECT ${id}, ${topic}, ${name}, ${key}, ${no}, ${data}, ${headers}, now() + ${delay} * interval '1 millisecond', ${trace} \
         FROM fence"
    )
}

/// Stages without a claim, if the witness is there.
pub(super) fn stage_unkeyed() -> String {
    format!(
        "WITH fence AS (SELECT {} WHERE current_setting('effectively.attempt', true) = $1) {}",
        claims::TAKE_WRITES_AFTER_COMMIT,
        stage(2)
    )
}

/// A transaction-local setting is the witness of a call without a key: it ends with the transaction it was set in.
pub(super) async fn begin_unkeyed(
    conn: &mut PgConnection,
    sql: &Sql,
    attempt: Attempt,
    isolation: Isolation,
) -> sqlx::Result<()> {
    let message = format!(
        "{}{}SELECT {NOTICE_LOST_CLIENT}, set_config('effectively.attempt', '{}', true)",
        sql.protect,
        begin_at(isolation),
        Hex(attempt.bytes())
    );
    begin_with(conn, message).await
}

pub(super) fn witness(sql: &Sql, attempt: Attempt) -> String {
    format!("SELECT {}('{}')", sql.check_attempt, Hex(attempt.bytes()))
}

type Statement<'q> = Query<'q, Postgres, PgArguments>;

pub(super) fn bind_row<'q>(
    query: Statement<'q>,
    end: &Completion<'_>,
    event: &Staged,
) -> Statement<'q> {
    let id = end.attempt.event_id(0);
    query
        .bind(id)
        .bind(&*event.topic)
        .bind(&*event.name)
        .bind(event.partition_key.as_deref())
        .bind(event.partition(id))
        .bind(event.data.as_slice())
        .bind(headers_json(&event.headers))
        .bind(event.delay_ms())
        .bind(end.traceparent)
}

pub(super) fn bind_rows<'q>(query: Statement<'q>, end: &Completion<'_>) -> Statement<'q> {
    let events = end.events;
    let ids: Vec<Uuid> = end.event_ids().collect();
    let partitions: Vec<i16> = events
        .iter()
        .zip(&ids)
        .map(|(event, id)| event.partition(*id))
        .collect();
    query
        .bind(ids)
        .bind(column(events, |event| &*event.topic))
        .bind(column(events, |event| &*event.name))
        .bind(column(events, |event| event.partition_key.as_deref()))
        .bind(partitions)
        .bind(column(events, |event| event.data.as_slice()))
        .bind(column(events, |event| headers_json(&event.headers)))
        .bind(column(events, Staged::delay_ms))
        .bind(end.traceparent)
}

fn column<'e, T>(events: &'e [Staged], value: impl Fn(&'e Staged) -> T) -> Vec<T> {
    events.iter().map(value).collect()
}

/// The rows as hex text, for ledgers built with `payload_literals(true)`. Empty when there are none.
pub(super) fn literal_rows(table: &str, end: &Completion<'_>) -> String {
    let mut sql = String::new();
    let bytes = |bytes: &[u8]| format!("decode('{}', 'hex')", Hex(bytes));
    let text = |text: &str| format!("convert_from({}, 'UTF8')", bytes(text.as_bytes()));
    let optional = |value: Option<&str>| value.map_or_else(|| "NULL".to_owned(), text);
    for (event, id) in end.events.iter().zip(end.event_ids()) {
        let head = if sql.is_empty() {
            format!("; INSERT INTO {table} {COLUMNS} VALUES ")
        } else {
            ", ".to_owned()
        };
        // Writing to a String does not fail.
        let _ = write!(
            sql,
            "{head}('{id}', {}, {}, {}, {}, {}, {}, now() + {} * interval '1 millisecond', {})",
            text(&event.topic),
            text(&event.name),
            optional(event.partition_key.as_deref()),
            event.partition(id),
            bytes(&event.data),
            optional(headers_json(&event.headers).as_deref()),
            event.delay_ms(),
            optional(end.traceparent),
        );
    }
    sql
}

pub(super) async fn pending(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql.pending.sql()).fetch_one(conn).await
}

pub(super) async fn read(
    conn: &mut PgConnection,
    sql: &Sql,
    limit: i64,
) -> sqlx::Result<Vec<Envelope>> {
    // Planned anew each time: what suits a small outbox would read a large one 128 times.
    let query = sqlx::query(sql.read.sql()).persistent(false);
    let rows = query.bind(limit).fetch_all(conn).await?;
    rows.iter().map(envelope_of).collect()
}

pub(super) async fn remove(
    conn: &mut PgConnection,
    sql: &Sql,
    event: &Envelope,
) -> sqlx::Result<()> {
    // Planned anew each time, for the same reason.
    sqlx::query(sql.remove.sql())
        .persistent(false)
        .bind(number(event.partition))
        .bind(waiting_room(event.partition))
        .bind(event.outbox_id)
        .execute(conn)
        .await
        .map(drop)
}

pub(super) fn envelope_of(row: &PgRow) -> sqlx::Result<Envelope> {
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
        database: Uuid::nil(),
    })
}
