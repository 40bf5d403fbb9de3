//! Claims: the first and the last statement of a call, and what operators do with them.

use std::{fmt::Write, time::Duration};

use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row,
    postgres::{PgDatabaseError, PgRow},
    raw_sql,
};

use super::{
    Attempt, Completion, Fault, Holder, InterruptedKey, KeyHash, NOTICE_LOST_CLIENT, NewClaim,
    READ_ONLY, Sql, TAKE_WRITES, Unfinished, Verbs, begin_at, begin_with, code, commit,
    lower_depth, outbox,
};
use crate::{
    fault::{Bug, in_time, is_planted},
    store::{
        answer_in, attempt_of, fingerprint_of,
        hex::{self, Hex},
    },
};

/// What a holder's row says; `holder_of` reads it. As hex: `bytea_output` decides how the server writes bytes as text.
const HOLDER: &str = "SELECT encode(attempt, 'hex'), encode(fingerprint, 'hex'), encode(outcome, 'hex'), \
     outcome IS NOT NULL AND expires_at <= now()";

/// Written as expired, so that an index finds it: operators must not have to read all outcomes that are kept.
pub(super) const INTERRUPTED: &str = "SELECT scope, id, extract(epoch FROM created_at)::bigint FROM {claims} \
     WHERE outcome IS NULL AND expires_at <= now() ORDER BY created_at LIMIT $1";

pub(super) const RELEASE: &str = "DELETE FROM {claims} WHERE id = $1 AND outcome IS NULL";

/// Rows that a call is taking over are locked: skipped, not waited for.
pub(super) const PURGE: &str = "DELETE FROM {claims} WHERE id IN (SELECT id FROM {claims} \
     WHERE expires_at <= now() AND outcome IS NOT NULL ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

/// SQLSTATEs that the functions of the migration raise, out of a class that the SQL standard leaves free.
const HELD: &str = "ZE001";
const NOT_OURS: &str = "ZE002";
/// SQLSTATE of a statement in a transaction that failed before.
const ABORTED: &str = "25P02";

/// Ends what `protect_session` began when the transaction commits, in a fence that is not a function of the migration.
pub(super) const TAKE_WRITES_AFTER_COMMIT: &str =
    "set_config('default_transaction_read_only', NULL, false)";

/// The fence with a bound outcome. COMMIT is sent only after its count was seen, so it need not raise.
pub(super) fn complete() -> String {
    format!(
        "UPDATE {{claims}} SET outcome = $3, gate = NULL WHERE id = $1 AND attempt = $2 AND gate = 1 \
         RETURNING {TAKE_WRITES_AFTER_COMMIT}"
    )
}

/// The same with the events in one statement: without the open claim none is inserted, so the count tells about both.
pub(super) fn complete_staging(stage: &str) -> String {
    format!("WITH fence AS ({}) {stage}", complete())
}

/// What a table adds to the numbers of its locks. The name is qualified, so tenants of one database do not meet.
pub(super) fn lock_of(table: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(table));
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn lock_id(sql: &Sql, hash: KeyHash) -> i64 {
    hash.lock_id() ^ sql.lock
}

/// As text: one round trip also on a new connection, and behind a pooler that keeps no prepared statements.
pub(super) async fn holder(
    conn: &mut PgConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    read_holder(conn, sql, hash, "").await
}

/// Answers whether the key is ours. It never waits for another call: the try-lock says that one is in flight.
///
/// At repeatable read or serializable a holder that committed after our snapshot is 40001: it is held, too.
pub(super) async fn begin(
    conn: &mut PgConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<bool> {
    match begin_with(conn, claim_message(sql, claim)).await {
        Ok(()) => Ok(true),
        Err(error) if matches!(code(&error).as_deref(), Some(HELD | "40001")) => Ok(false),
        Err(error) => Err(error),
    }
}

fn claim_message(sql: &Sql, claim: &NewClaim<'_>) -> String {
    let table = &sql.claims;
    let (id, attempt, lock) = (
        Hex(&claim.hash.0),
        Hex(claim.attempt.bytes()),
        lock_id(sql, claim.hash),
    );
    let mut message = String::with_capacity(600);
    message += &sql.protect;
    message += begin_at(claim.isolation);
    // Writing to a String does not fail.
    let _ = if claim.takeover {
        write!(
            message,
            "DELETE FROM {table} WHERE id = decode('{id}', 'hex') AND expires_at <= now() AND outcome IS NOT NULL \
             AND pg_try_advisory_xact_lock({lock}); "
        )
    } else {
        Ok(())
    };
    let fingerprint = claim.fingerprint.map_or_else(
        || "NULL".to_owned(),
        |fingerprint| format!("'{}'", Hex(&fingerprint.0)),
    );
    let _ = write!(
        message,
        "SELECT {function}('{id}', '{scope}', '{attempt}', {fingerprint}, {retention}, {lock})",
        function = sql.claim,
        scope = claim.scope,
        retention = claim.retention.as_millis(),
    );
    if claim.savepoint {
        message += "; SAVEPOINT effectively";
    }
    by_our_clock(message)
}

/// A bug that a test may plant.
fn by_our_clock(message: String) -> String {
    in_time(message, "now()", "to_timestamp({})")
}

pub(super) async fn end_held(
    conn: &mut PgConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    read_holder(conn, sql, hash, &format!("ROLLBACK; {TAKE_WRITES}; ")).await
}

async fn read_holder(
    conn: &mut PgConnection,
    sql: &Sql,
    hash: KeyHash,
    before: &str,
) -> sqlx::Result<Option<Holder>> {
    let message = format!(
        "{before}{HOLDER} FROM {} WHERE id = decode('{}', 'hex')",
        sql.claims,
        Hex(&hash.0)
    );
    let message = by_our_clock(message);
    let row = raw_sql(AssertSqlSafe(message)).fetch_optional(conn).await?;
    row.map(|row| holder_of(&row)).transpose()
}

/// Shared, so that all who wait wake up together when the holder ends.
///
/// A limit that the session sets on its statements is lifted: the wait has its own.
pub(super) async fn await_holder(
    conn: &mut PgConnection,
    sql: &Sql,
    hash: KeyHash,
    bound: Duration,
) -> sqlx::Result<()> {
    let message = format!(
        "{}SELECT {NOTICE_LOST_CLIENT}, set_config('statement_timeout', '0', true), set_config('lock_timeout', '{}', true); \
         SELECT pg_advisory_xact_lock_shared({})",
        begin_at(Default::default()),
        bound.as_millis().max(1),
        lock_id(sql, hash)
    );
    let waited = begin_with(conn, message).await;
    raw_sql("ROLLBACK").execute(&mut *conn).await?;
    lower_depth(conn);
    match waited {
        // Lock timeout, or cancelled: still in flight, which the next claim will find out.
        Err(error) if !matches!(code(&error).as_deref(), Some("55P03" | "57014")) => Err(error),
        _ => Ok(()),
    }
}

/// Fence, events, COMMIT. One message when nothing has to be bound, two otherwise.
pub(super) async fn finish(
    conn: &mut PgConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    if end.refused {
        raw_sql("ROLLBACK TO SAVEPOINT effectively")
            .execute(&mut *conn)
            .await
            .map_err(without_savepoint)?;
    }
    if end.literals {
        let message = literal_fence(sql, end)
            + &outbox::literal_rows(&sql.outbox, end)
            + "; COMMIT AND CHAIN";
        let commit = raw_sql(AssertSqlSafe(message)).execute(&mut *conn);
        if let Err(error) = answer_in(end.patience, commit).await {
            return Err(match Postgres::fault(&error) {
                Fault::Disconnected => Unfinished::Unknown(error),
                _ => refused(conn, end.attempt, error).await,
            });
        }
        lower_depth(conn);
        return Ok(());
    }
    match bound_fence(conn, sql, end).await {
        Ok(true) => {}
        Ok(false) => return Err(Unfinished::Lost),
        Err(error) => return Err(refused(conn, end.attempt, error).await),
    }
    crate::fault::point("before_commit")
        .await
        .map_err(Unfinished::NotCommitted)?;
    answer_in(end.patience, commit(conn))
        .await
        .map_err(|error| match Postgres::fault(&error) {
            Fault::Disconnected => Unfinished::Unknown(error),
            _ => Unfinished::NotCommitted(error),
        })
}

/// Answers whether the transaction is still the one that claimed.
async fn bound_fence(
    conn: &mut PgConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> sqlx::Result<bool> {
    let query = match end.claim {
        None => sqlx::query(sql.stage_unkeyed.sql()).bind(Hex(end.attempt.bytes()).to_string()),
        Some((hash, outcome)) => {
            let statement = match end.events {
                [] => &sql.complete,
                [_] => &sql.complete_staging_one,
                _ => &sql.complete_staging,
            };
            sqlx::query(statement.sql())
                .bind(hash.0.as_slice())
                .bind(end.attempt.bytes().as_slice())
                .bind(outcome)
        }
    };
    let query = match (end.claim, end.events) {
        (Some(_), []) => query,
        (Some(_), [event]) => outbox::bind_row(query, end, event),
        _ => outbox::bind_rows(query, end),
    };
    let done = query.execute(conn).await?;
    Ok(done.rows_affected() == end.events.len().max(1) as u64)
}

fn literal_fence(sql: &Sql, end: &Completion<'_>) -> String {
    match end.claim {
        None => outbox::witness(sql, end.attempt),
        Some((hash, outcome)) => format!(
            "SELECT {}('{}', '{}', '{}')",
            sql.complete_or_raise,
            Hex(&hash.0),
            Hex(end.attempt.bytes()),
            Hex(outcome),
        ),
    }
}

/// What it means that the fence failed. A trigger of the application may have raised any SQLSTATE in the same message.
async fn refused(conn: &mut PgConnection, attempt: Attempt, error: sqlx::Error) -> Unfinished {
    let raised = |error: &sqlx::Error| {
        let error = error.as_database_error();
        error.is_some_and(|error| error.constraint() == Some(&*Hex(attempt.bytes()).to_string()))
    };
    match code(&error).as_deref() {
        Some(NOT_OURS) if raised(&error) => Unfinished::Lost,
        _ if is_raised_by_function(&error) => Unfinished::NotCommitted(error),
        Some(ABORTED) => Unfinished::Aborted(error),
        Some(READ_ONLY) => match raw_sql("SELECT 1").execute(conn).await {
            // Outside a transaction: the claim went with it, and the server has refused to write since.
            Ok(_) => Unfinished::Lost,
            // Inside the one that has just failed.
            Err(_) => Unfinished::ReadOnly(error),
        },
        _ => Unfinished::NotCommitted(error),
    }
}

fn is_raised_by_function(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    let error = error.and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.and_then(PgDatabaseError::routine) == Some("exec_stmt_raise")
}

/// `ROLLBACK TO` outside a transaction, or in one that has no such savepoint.
fn without_savepoint(error: sqlx::Error) -> Unfinished {
    match code(&error).as_deref() {
        Some("25P01" | "3B001") => Unfinished::Lost,
        _ => Unfinished::NotCommitted(error),
    }
}

/// A row without outcome and gate is an interrupted key. Never over a row that is there: that one is another call's. It stands
/// where the index of ages begins, whatever the clock does later.
pub(super) async fn interrupt(
    conn: &mut PgConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<()> {
    let over = match is_planted(Bug::InterruptionOverwrites) {
        true => "(id) DO UPDATE SET outcome = NULL",
        false => "DO NOTHING",
    };
    let message = format!(
        "INSERT INTO {} (id, scope, attempt, expires_at) \
         VALUES (decode('{}', 'hex'), '{}', decode('{}', 'hex'), to_timestamp(0)) ON CONFLICT {over}",
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
    conn: &mut PgConnection,
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
    conn: &mut PgConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<bool> {
    let done = sqlx::query(sql.release.sql())
        .bind(hash.0.as_slice())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn purge(conn: &mut PgConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    // Planned anew each time: what suits a new table would read all of a large one.
    Ok(sqlx::query(sql.purge.sql())
        .persistent(false)
        .bind(limit)
        .execute(conn)
        .await?
        .rows_affected())
}

fn holder_of(row: &PgRow) -> sqlx::Result<Holder> {
    let bytes = |column| {
        let hex: Option<&str> = row.try_get(column)?;
        hex.map(hex::bytes).transpose()
    };
    Ok(Holder {
        attempt: attempt_of(&bytes(0)?.unwrap_or_default())?,
        fingerprint: fingerprint_of(bytes(1)?),
        outcome: bytes(2)?,
        expired: row.try_get(3)?,
    })
}
