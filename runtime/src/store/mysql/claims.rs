//! Claims: the first and the last statement of a call, and what operators do with them.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, Row, mysql::MySqlRow, raw_sql};

use super::{
    Completion, Fault, Holder, InterruptedKey, KeyHash, NewClaim, RESTORE, Sql, Unfinished, Verbs,
    WITNESS, begin_at, begin_with, lower_depth, number, outbox,
};
use crate::store::{answer_in, attempt_of, fingerprint_of, hex::Hex};

pub(super) const HOLDER: &str = "SELECT attempt, fingerprint, outcome, outcome IS NOT NULL AND expires_at <= UTC_TIMESTAMP(6) FROM {claims} WHERE id = ?";

pub(super) const COMPLETE: &str =
    "UPDATE {claims} SET outcome = ? WHERE id = ? AND attempt = ? AND outcome IS NULL";

/// Reads all claims: one that its body committed is interrupted, too, and expires when it would have.
pub(super) const INTERRUPTED: &str = "SELECT scope, id, TIMESTAMPDIFF(SECOND, '1970-01-01', created_at) FROM {claims} WHERE outcome IS NULL ORDER BY created_at LIMIT ?";

pub(super) const RELEASE: &str = "DELETE FROM {claims} WHERE id = ? AND outcome IS NULL";

/// Rows that a call is taking over are locked: skipped, not waited for. Joined in this order, so that each row is found by its key.
pub(super) const PURGE: &str = "DELETE claim FROM (SELECT id FROM {claims} \
     WHERE expires_at <= UTC_TIMESTAMP(6) AND outcome IS NOT NULL ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED) AS expired \
     STRAIGHT_JOIN {claims} AS claim ON claim.id = expired.id";

/// Duplicate key: the row is there.
const DUPLICATE: u16 = 1062;
/// Another transaction holds the row: `NOWAIT` (MySQL says 3572, MariaDB 1205), or the second that an INSERT may wait.
const LOCKED: [u16; 2] = [1205, 3572];
/// The savepoint is not there.
const NO_SAVEPOINT: u16 = 1305;
/// A scalar subquery with two rows: how our own statement raises.
const TWO_ROWS: u16 = 1242;

/// How long the INSERT may wait, in seconds: only for a claim that came between the locking read and it.
const RACE: &str = "SET @effectively_wait = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = 1";

pub(super) async fn holder(
    conn: &mut MySqlConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    let row = sqlx::query(sql.holder.sql())
        .bind(hash.0.as_slice())
        .fetch_optional(conn)
        .await?;
    row.map(|row| holder_of(&row)).transpose()
}

/// Answers whether the key is ours. It waits for another call at most one second, when two claims race.
pub(super) async fn begin(
    conn: &mut MySqlConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<bool> {
    match begin_with(conn, claim_message(sql, claim)).await {
        Ok(()) => Ok(true),
        Err(error)
            if number(&error)
                .is_some_and(|number| number == DUPLICATE || LOCKED.contains(&number)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The read that does not wait stands before the transaction. Inside, at repeatable read and above, it would lock the gap that
/// the row goes into, and with it the claims of other keys, until the call ends.
fn claim_message(sql: &Sql, claim: &NewClaim<'_>) -> String {
    let table = &sql.claims;
    let (id, attempt) = (Hex(&claim.hash.0), Hex(claim.attempt.bytes()));
    let takeover = if claim.takeover {
        format!(
            "DELETE FROM {table} WHERE id = x'{id}' AND expires_at <= UTC_TIMESTAMP(6) AND outcome IS NOT NULL; "
        )
    } else {
        String::new()
    };
    let fingerprint = claim.fingerprint.map_or_else(
        || "NULL".to_owned(),
        |fingerprint| format!("x'{}'", Hex(&fingerprint.0)),
    );
    format!(
        "SELECT 1 FROM {table} WHERE id = x'{id}' FOR UPDATE NOWAIT; {begin}; {RACE}; {takeover}\
         INSERT INTO {table} (id, scope, attempt, fingerprint, created_at, expires_at) \
         VALUES (x'{id}', '{scope}', x'{attempt}', {fingerprint}, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL {retention} MICROSECOND); \
         SET SESSION innodb_lock_wait_timeout = @effectively_wait; {WITNESS}",
        begin = begin_at(claim.isolation),
        scope = claim.scope,
        retention = claim.retention.as_micros(),
    )
}

pub(super) async fn end_held(
    conn: &mut MySqlConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    let select = "SELECT attempt, fingerprint, outcome, outcome IS NOT NULL AND expires_at <= UTC_TIMESTAMP(6)";
    let message = format!(
        "ROLLBACK; {RESTORE}; {select} FROM {} WHERE id = x'{}'",
        sql.claims,
        Hex(&hash.0)
    );
    let row = raw_sql(AssertSqlSafe(message)).fetch_optional(conn).await?;
    row.map(|row| holder_of(&row)).transpose()
}

/// A locking read outside a transaction. InnoDB counts whole seconds, so the wait may be up to one second longer.
pub(super) async fn await_holder(
    conn: &mut MySqlConnection,
    sql: &Sql,
    hash: KeyHash,
    bound: Duration,
) -> sqlx::Result<()> {
    let seconds = bound.as_millis().div_ceil(1000).max(1);
    let message = format!(
        "SET @effectively_wait = @@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout = {seconds}; \
         SELECT 1 FROM {} WHERE id = x'{}' LOCK IN SHARE MODE",
        sql.claims,
        Hex(&hash.0)
    );
    let waited = raw_sql(AssertSqlSafe(message)).execute(&mut *conn).await;
    raw_sql(AssertSqlSafe(RESTORE.to_owned()))
        .execute(conn)
        .await?;
    match waited {
        // Lock wait timeout: still in flight, which the next claim will find out. So will it after a deadlock.
        Err(error) if !matches!(number(&error), Some(1205 | 1213)) => Err(error),
        _ => Ok(()),
    }
}

/// Fence, events, COMMIT. The witness is released in the message that commits: a statement before it may have run in another
/// transaction, which ROLLBACK then ends.
pub(super) async fn finish(
    conn: &mut MySqlConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    if end.refused {
        raw_sql("ROLLBACK TO SAVEPOINT effectively")
            .execute(&mut *conn)
            .await
            .map_err(before_commit)?;
    }
    let fence = if end.literals {
        literal_fence(sql, end) + &outbox::literal_rows(&sql.outbox, end)
    } else {
        bound_fence(conn, sql, end).await?;
        crate::fault::point("before_commit")
            .await
            .map_err(Unfinished::NotCommitted)?;
        String::new()
    };
    let message = format!("RELEASE SAVEPOINT effectively{fence}; COMMIT; SET autocommit = 1");
    answer_in(
        end.patience,
        raw_sql(AssertSqlSafe(message)).execute(&mut *conn),
    )
    .await
    .map_err(while_committing)?;
    lower_depth(conn);
    Ok(())
}

async fn bound_fence(
    conn: &mut MySqlConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    if let Some((hash, outcome)) = end.claim {
        let query = sqlx::query(sql.complete.sql())
            .bind(outcome)
            .bind(hash.0.as_slice())
            .bind(end.attempt.bytes().as_slice());
        let done = query.execute(&mut *conn).await.map_err(before_commit)?;
        if done.rows_affected() != 1 {
            return Err(Unfinished::Lost);
        }
    }
    outbox::stage(conn, sql, end).await.map_err(before_commit)
}

fn literal_fence(sql: &Sql, end: &Completion<'_>) -> String {
    let Some((hash, outcome)) = end.claim else {
        return String::new();
    };
    format!(
        "; UPDATE {} SET outcome = x'{}' WHERE id = x'{}' AND attempt = x'{}' AND outcome IS NULL; \
         SELECT IF(ROW_COUNT() = 1, 1, (SELECT 1 UNION SELECT 2))",
        sql.claims,
        Hex(outcome),
        Hex(&hash.0),
        Hex(end.attempt.bytes()),
    )
}

/// The connection may break before COMMIT is sent: the server then rolls back.
fn before_commit(error: sqlx::Error) -> Unfinished {
    match number(&error) {
        Some(NO_SAVEPOINT | TWO_ROWS) => Unfinished::Lost,
        _ => Unfinished::NotCommitted(error),
    }
}

fn while_committing(error: sqlx::Error) -> Unfinished {
    match MySql::fault(&error) {
        // The server may have committed before it ended the session.
        Fault::Disconnected => Unfinished::Unknown(error),
        _ => before_commit(error),
    }
}

/// A row without outcome is an interrupted key. Never over a row that is there: that one is another call's.
pub(super) async fn interrupt(
    conn: &mut MySqlConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<()> {
    let message = format!(
        "INSERT INTO {} (id, scope, attempt, created_at, expires_at) \
         VALUES (x'{}', '{}', x'{}', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE scope = scope",
        sql.claims,
        Hex(&claim.hash.0),
        claim.scope,
        Hex(claim.attempt.bytes()),
    );
    raw_sql(AssertSqlSafe(message))
        .execute(conn)
        .await
        .map(drop)
}

pub(super) async fn interrupted(
    conn: &mut MySqlConnection,
    sql: &Sql,
    limit: i64,
) -> sqlx::Result<Vec<InterruptedKey>> {
    let rows = sqlx::query(sql.interrupted.sql())
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| InterruptedKey::of(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        .collect()
}

pub(super) async fn release(
    conn: &mut MySqlConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<bool> {
    let done = sqlx::query(sql.release.sql())
        .bind(hash.0.as_slice())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn purge(conn: &mut MySqlConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql.purge.sql())
        .bind(limit)
        .execute(conn)
        .await?
        .rows_affected())
}

fn holder_of(row: &MySqlRow) -> sqlx::Result<Holder> {
    Ok(Holder {
        attempt: attempt_of(row.try_get::<Vec<u8>, _>(0)?.as_slice())?,
        fingerprint: fingerprint_of(row.try_get(1)?),
        outcome: row.try_get(2)?,
        expired: row.try_get::<i64, _>(3)? != 0,
    })
}
