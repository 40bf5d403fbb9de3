//! Dead letters, and what operators look at.

use sqlx::{Connection, MySqlConnection, Row, mysql::MySqlRow};

use super::Sql;
use crate::{
    fault::{Bug, is_planted},
    store::{
        headers_of,
        leases::Lease,
        millis,
        relay::{Backlog, DeadLetter, number},
    },
};

const KEPT: &str =
    "event_id, topic, type, partition_key, partition_no, data, headers, traceparent, created_at";

/// In one transaction, so that an event is in exactly one of the two tables whatever happens. `held`: the leases that still hold.
/// Another dead letter may have its number already: a database that was restored gives places out again.
pub(super) async fn bury(
    conn: &mut MySqlConnection,
    sql: &Sql,
    lease: Lease,
    outbox_id: i64,
    reason: &str,
    held: &str,
) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let copy = format!(
        "INSERT INTO {{dead_letters}} (id, {KEPT}, attempts, error, failed_at) \
         SELECT CASE WHEN EXISTS (SELECT 1 FROM {{dead_letters}} AS d WHERE d.id = o.id) \
         THEN (SELECT max(d.id) + 1 FROM {{dead_letters}} AS d) ELSE o.id END, \
         {KEPT}, LEAST(attempts + 1, 32767), ?, {{now}} FROM {{outbox}} AS o WHERE partition_no = ? AND id = ? AND partition_no IN ({held})"
    );
    let query = sqlx::query(sql.fill(&copy)).persistent(false);
    let query = query.bind(reason.to_owned()).bind(number(lease.partition));
    let copied = query
        .bind(outbox_id)
        .execute(&mut *tx)
        .await?
        .rows_affected();
    if is_planted(Bug::MovesInTwoTransactions) {
        tx.commit().await?;
        tx = conn.begin().await?;
    }
    if copied == 1 {
        let gone = sql.fill("DELETE FROM {outbox} WHERE partition_no = ? AND id = ?");
        let gone = sqlx::query(gone).bind(number(lease.partition));
        gone.bind(outbox_id).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(copied == 1)
}

pub(super) async fn list(
    conn: &mut MySqlConnection,
    sql: &Sql,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let statement = sql.fill(
        "SELECT id, event_id, topic, type, partition_key, data, headers, attempts, error, \
         TIMESTAMPDIFF(MICROSECOND, '1970-01-01', created_at) DIV 1000, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', failed_at) DIV 1000 FROM {dead_letters} WHERE id > ? ORDER BY id LIMIT ?",
    );
    let query = sqlx::query(statement).bind(after).bind(limit);
    let rows = query.fetch_all(conn).await?;
    rows.iter().map(dead_letter_of).collect()
}

/// To its place, or to a new one if that was given out again.
pub(super) async fn retry(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let back = format!(
        "INSERT INTO {{outbox}} (id, {KEPT}, available_at) \
         SELECT CASE WHEN EXISTS (SELECT 1 FROM {{outbox}} AS o WHERE o.id = d.id) THEN NULL ELSE d.id END, {KEPT}, {{now}} FROM {{dead_letters}} AS d WHERE d.id = ? FOR UPDATE"
    );
    let query = sqlx::query(sql.fill(&back)).bind(id);
    let copied = query.execute(&mut *tx).await?.rows_affected();
    if copied == 1 {
        let gone = sql.fill("DELETE FROM {dead_letters} WHERE id = ?");
        sqlx::query(gone).bind(id).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(copied == 1)
}

pub(super) async fn discard(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
    let query = sqlx::query(sql.fill("DELETE FROM {dead_letters} WHERE id = ?")).bind(id);
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// Reads all claims: one that its body committed is interrupted, too, and expires when it would have.
pub(super) async fn backlog(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Backlog> {
    let statement = sql.fill(
        "SELECT count(CASE WHEN partition_no >= 0 THEN 1 END), count(CASE WHEN partition_no < 0 AND attempts = 0 THEN 1 END), \
         count(CASE WHEN partition_no < 0 AND attempts > 0 THEN 1 END), \
         coalesce(TIMESTAMPDIFF(MICROSECOND, min(CASE WHEN partition_no >= 0 THEN available_at END), {now}) DIV 1000, 0), \
         (SELECT count(*) FROM {dead_letters}), (SELECT count(*) FROM {claims} WHERE outcome IS NULL), \
         (SELECT count(*) FROM {relays} WHERE expires_at > {now}) FROM {outbox}",
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

fn dead_letter_of(row: &MySqlRow) -> sqlx::Result<DeadLetter> {
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
