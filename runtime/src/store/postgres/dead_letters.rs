//! Dead letters, and what operators look at.

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::Sql;
use crate::store::{
    headers_of,
    leases::Lease,
    millis,
    relay::{Backlog, DeadLetter, number},
};

const KEPT: &str = "event_id, topic, type, partition_key, data, headers, traceparent, created_at";

/// In one statement, so that an event is in exactly one of the two tables whatever happens. `held`: the leases that still hold.
/// Another dead letter may have its number already: a database that was restored gives places out again.
pub(super) async fn bury(
    conn: &mut PgConnection,
    sql: &Sql,
    lease: Lease,
    outbox_id: i64,
    reason: &str,
    held: &str,
) -> sqlx::Result<bool> {
    let statement = format!(
        "WITH dead AS (DELETE FROM {{outbox}} WHERE partition_no = $1 AND id = $2 AND partition_no IN ({held}) RETURNING *) \
         INSERT INTO {{dead_letters}} (id, {KEPT}, partition_no, attempts, error) \
         SELECT CASE WHEN EXISTS (SELECT 1 FROM {{dead_letters}} AS d WHERE d.id = dead.id) \
         THEN (SELECT max(d.id) + 1 FROM {{dead_letters}} AS d) ELSE dead.id END, \
         {KEPT}, partition_no, least(attempts + 1, 32767), $3 FROM dead"
    );
    let query = sqlx::query(sql.fill(&statement)).persistent(false);
    let query = query.bind(number(lease.partition)).bind(outbox_id);
    Ok(query.bind(reason).execute(conn).await?.rows_affected() == 1)
}

pub(super) async fn list(
    conn: &mut PgConnection,
    sql: &Sql,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let statement = sql.fill(
        "SELECT id, event_id, topic, type, partition_key, data, headers, attempts, error, \
         (extract(epoch FROM created_at) * 1000)::bigint, (extract(epoch FROM failed_at) * 1000)::bigint \
         FROM {dead_letters} WHERE id > $1 ORDER BY id LIMIT $2",
    );
    let query = sqlx::query(statement).bind(after).bind(limit);
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(dead_letter_of).collect()
}

/// To its place, or to a new one if that was given out again.
pub(super) async fn retry(conn: &mut PgConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
    let statement = format!(
        "WITH back AS (DELETE FROM {{dead_letters}} WHERE id = $1 RETURNING *) \
         INSERT INTO {{outbox}} (id, {KEPT}, partition_no, available_at) OVERRIDING SYSTEM VALUE \
         SELECT CASE WHEN EXISTS (SELECT 1 FROM {{outbox}} AS o WHERE o.partition_no IN (back.partition_no, -1 - back.partition_no) AND o.id = back.id) \
         THEN nextval(pg_get_serial_sequence('{{outbox}}', 'id')) ELSE back.id END, {KEPT}, partition_no, now() FROM back"
    );
    let query = sqlx::query(sql.fill(&statement)).bind(id);
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

pub(super) async fn discard(conn: &mut PgConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
    let query = sqlx::query(sql.fill("DELETE FROM {dead_letters} WHERE id = $1")).bind(id);
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// An interrupted key is written as expired, so that an index finds it: a gauge must not read all outcomes that are kept.
pub(super) async fn backlog(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Backlog> {
    let statement = sql.fill(
        "SELECT count(*) FILTER (WHERE partition_no >= 0), count(*) FILTER (WHERE partition_no < 0 AND attempts = 0), \
         count(*) FILTER (WHERE partition_no < 0 AND attempts > 0), \
         coalesce((extract(epoch FROM now() - min(available_at) FILTER (WHERE partition_no >= 0)) * 1000)::bigint, 0), \
         (SELECT count(*) FROM {dead_letters}), (SELECT count(*) FROM {claims} WHERE outcome IS NULL AND expires_at <= now()), \
         (SELECT count(*) FROM {relays} WHERE expires_at > now()) FROM {outbox}",
    );
    let row = sqlx::query(statement).fetch_one(conn).await?;
    let count = |place: usize| row.try_get::<i64, _>(place).map(i64::unsigned_abs);
    Ok(Backlog {
        due: count(0)?,
        delayed: count(1)?,
        retrying: count(2)?,
        oldest: millis(row.try_get(3)?),
        dead_letters: count(4)?,
        interrupted_keys: count(5)?,
        relays: count(6)?,
    })
}

fn dead_letter_of(row: &PgRow) -> sqlx::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.try_get(0)?,
        event_id: row.try_get(1)?,
        topic: row.try_get(2)?,
        name: row.try_get(3)?,
        partition_key: row.try_get(4)?,
        data: row.try_get(5)?,
        headers: headers_of(row.try_get(6)?),
        attempts: row.try_get::<i16, _>(7)?.unsigned_abs(),
        error: row.try_get(8)?,
        staged_at: millis(row.try_get(9)?),
        failed_at: millis(row.try_get(10)?),
    })
}
