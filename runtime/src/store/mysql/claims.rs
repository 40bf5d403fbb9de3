//! Claims: the first and the last statement of a call, and what operators do with them.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, Row, mysql::MySqlRow, raw_sql};

use super::{
    CLOCK, COMMIT, Completion, ENTER, Fault, Holder, InterruptedKey, KeyHash, NewClaim,
    READ_COMMITTED, RESTORE, ROLLBACK, Sql, Unfinished, Verbs, WAIT_AS_BEFORE, WITNESS, begin_at,
    begin_with, lower_depth, number, outbox,
};
use crate::{
    fault::in_time,
    store::{answer_in, attempt_of, fingerprint_of, hex::Hex},
};

/// Finds nothing where it would read what is not committed: the claim decides then, as it always may.
pub(super) const HOLDER: &str = "SELECT attempt, fingerprint, outcome, outcome IS NOT NULL AND expires_at <= {clock} FROM {claims} \
     WHERE id = ? AND {reads_committed}";

pub(super) const COMPLETE: &str =
    "UPDATE {claims} SET outcome = ? WHERE id = ? AND attempt = ? AND outcome IS NULL";

/// Reads all claims: one that its body committed is interrupted, too, and expires when it would have.
pub(super) const INTERRUPTED: &str = "SELECT scope, id, TIMESTAMPDIFF(SECOND, '1970-01-01', created_at) FROM {claims} WHERE outcome IS NULL ORDER BY created_at LIMIT ?";

pub(super) const RELEASE: &str = "DELETE FROM {claims} WHERE id = ? AND outcome IS NULL";

/// Rows that a call is taking over are locked: skipped, not waited for. Joined in this order, so that each row is found by its key.
pub(super) const PURGE: &str = "DELETE claim FROM (SELECT id FROM {claims} \
     WHERE expires_at <= {now} AND outcome IS NOT NULL ORDER BY expires_at LIMIT ? FOR UPDATE SKIP LOCKED) AS expired \
     STRAIGHT_JOIN {claims} AS claim ON claim.id = expired.id";

/// Duplicate key: the row is there.
const DUPLICATE: u16 = 1062;
/// Another transaction holds the row: `NOWAIT` (MySQL says 3572, MariaDB 1205), or the second that an INSERT may wait.
const LOCKED: [u16; 2] = [1205, 3572];
/// The session's or the server's time limit for a statement (MariaDB, MySQL) ended a wait.
const OUT_OF_TIME: [u16; 2] = [1969, 3024];
const DEADLOCK: u16 = 1213;
/// Of a Galera node.
const OUTSIDE_OF_CLUSTER: u16 = 1047;
/// The savepoint is not there.
const NO_SAVEPOINT: u16 = 1305;
/// How a fence fails in a transaction that is not ours: no savepoint, no claim (a scalar subquery with two rows, by which our own
/// statement raises), no right to write, tables that the body has locked. An application's trigger may raise the same.
const LOSSES: [u16; 5] = [NO_SAVEPOINT, 1242, 1792, 1099, 1100];

const ROLLBACK_TO_WITNESS: &str = "ROLLBACK TO SAVEPOINT effectively";

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
        Err(error) if number(&error).is_some_and(is_held) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_held(number: u16) -> bool {
    number == DUPLICATE || LOCKED.contains(&number) || OUT_OF_TIME.contains(&number)
}

/// The read that does not wait stands before the transaction. Inside, at repeatable read and above, it would lock the gap that
/// the row goes into, and with it the claims of other keys, until the call ends.
fn claim_message(sql: &Sql, claim: &NewClaim<'_>) -> String {
    let table = &sql.claims;
    let (id, attempt) = (Hex(&claim.hash.0), Hex(claim.attempt.bytes()));
    let takeover = if claim.takeover {
        format!(
            "DELETE FROM {table} WHERE id = x'{id}' AND expires_at <= {CLOCK} AND outcome IS NOT NULL; "
        )
    } else {
        String::new()
    };
    let fingerprint = claim.fingerprint.map_or_else(
        || "NULL".to_owned(),
        |fingerprint| format!("x'{}'", Hex(&fingerprint.0)),
    );
    format!(
        "{ENTER}; SELECT 1 FROM {table} WHERE id = x'{id}' FOR UPDATE NOWAIT; {begin}; {takeover}\
         INSERT INTO {table} (id, scope, attempt, fingerprint, created_at, expires_at) \
         VALUES (x'{id}', '{scope}', x'{attempt}', {fingerprint}, {CLOCK}, {CLOCK} + INTERVAL {retention} MICROSECOND); \
         {WAIT_AS_BEFORE}; {WITNESS}",
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
    let select = "SELECT attempt, fingerprint, outcome, outcome IS NOT NULL AND expires_at <=";
    let message = format!(
        "{ROLLBACK}; UNLOCK TABLES; SET SESSION autocommit = 1; {READ_COMMITTED}; {select} {CLOCK} FROM {} WHERE id = x'{}'; {RESTORE}",
        sql.claims,
        Hex(&hash.0)
    );
    // A bug that a test may plant.
    let message = in_time(message, CLOCK, "('1970-01-01' + INTERVAL {} SECOND)");
    let rows = raw_sql(AssertSqlSafe(message)).fetch_all(conn).await?;
    rows.first().map(holder_of).transpose()
}

/// A locking read outside a transaction, on MariaDB without the session's time limit. InnoDB counts whole seconds, so the wait
/// may be up to one second longer.
pub(super) async fn await_holder(
    conn: &mut MySqlConnection,
    sql: &Sql,
    hash: KeyHash,
    bound: Duration,
) -> sqlx::Result<()> {
    let seconds = bound.as_millis().div_ceil(1000).max(1);
    let message = format!(
        "{ENTER}; SET SESSION innodb_lock_wait_timeout = {seconds}; /*M! SET STATEMENT max_statement_time = 0 FOR */ SELECT 1 FROM {} WHERE id = x'{}' LOCK IN SHARE MODE",
        sql.claims,
        Hex(&hash.0)
    );
    let waited = raw_sql(AssertSqlSafe(message)).execute(&mut *conn).await;
    raw_sql(AssertSqlSafe(RESTORE.to_owned()))
        .execute(conn)
        .await?;
    match waited {
        // Out of time, in one way or the other: still in flight, which the next claim will find out. So will it after a deadlock.
        Err(error)
            if !number(&error).is_some_and(|number| is_held(number) || number == DEADLOCK) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Fence, events, COMMIT. The witness is released in the message that commits: what came before it may have run in another
/// transaction, which ROLLBACK then ends.
pub(super) async fn finish(
    conn: &mut MySqlConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    match fence_and_commit(conn, sql, end).await {
        Err(Unfinished::NotCommitted(error)) => Err(tell_apart(conn, error).await),
        ended => ended,
    }
}

async fn fence_and_commit(
    conn: &mut MySqlConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    if end.refused {
        raw_sql(ROLLBACK_TO_WITNESS)
            .execute(&mut *conn)
            .await
            .map_err(Unfinished::NotCommitted)?;
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
    let message = format!("{fence}RELEASE SAVEPOINT effectively; {COMMIT}; {RESTORE}");
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
        let done = query.execute(&mut *conn).await;
        if done.map_err(Unfinished::NotCommitted)?.rows_affected() != 1 {
            return Err(Unfinished::Lost);
        }
    }
    let staged = outbox::stage(conn, sql, end).await;
    staged.map_err(Unfinished::NotCommitted)
}

fn literal_fence(sql: &Sql, end: &Completion<'_>) -> String {
    let Some((hash, outcome)) = end.claim else {
        return String::new();
    };
    format!(
        "UPDATE {} SET outcome = x'{}' WHERE id = x'{}' AND attempt = x'{}' AND outcome IS NULL; \
         SELECT IF(ROW_COUNT() = 1, 1, (SELECT 1 UNION SELECT 2)); ",
        sql.claims,
        Hex(outcome),
        Hex(&hash.0),
        Hex(end.attempt.bytes()),
    )
}

/// Whether a fence failed because the transaction is not ours: only the witness can tell that from a trigger of the application
/// that raises the same error.
async fn tell_apart(conn: &mut MySqlConnection, error: sqlx::Error) -> Unfinished {
    if !number(&error).is_some_and(|number| LOSSES.contains(&number)) {
        return Unfinished::NotCommitted(error);
    }
    match raw_sql(ROLLBACK_TO_WITNESS).execute(conn).await {
        Err(gone) if number(&gone) == Some(NO_SAVEPOINT) => Unfinished::Lost,
        _ => Unfinished::NotCommitted(error),
    }
}

/// The server may have committed before it ended the session, left its cluster or ran out of time.
fn while_committing(error: sqlx::Error) -> Unfinished {
    let is_open = |number| number == OUTSIDE_OF_CLUSTER || OUT_OF_TIME.contains(&number);
    if MySql::fault(&error) == Fault::Disconnected || number(&error).is_some_and(is_open) {
        Unfinished::Unknown(error)
    } else {
        Unfinished::NotCommitted(error)
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
         VALUES (x'{}', '{}', x'{}', {CLOCK}, {CLOCK}) ON DUPLICATE KEY UPDATE scope = scope",
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
