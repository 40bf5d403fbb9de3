//! Claims: the first and the last statement of a call, and what operators do with them.

use sqlx::{Database, Row, Sqlite, SqliteConnection, raw_sql, sqlite::SqliteRow};
use sqlx_core::transaction::TransactionManager;

use super::{
    BEGIN, Completion, Fault, Holder, InterruptedKey, KeyHash, NOW, NewClaim, Sql, Unfinished,
    Verbs, WITNESS, allow_commits, begin_with, code, outbox, refuse_commits,
};
use crate::store::{attempt_of, fingerprint_of, hex::Hex};

pub(super) const HOLDER: &str = "SELECT attempt, fingerprint, outcome, outcome IS NOT NULL AND expires_at <= {now} FROM {claims} WHERE id = ?";

pub(super) const COMPLETE: &str =
    "UPDATE {claims} SET outcome = ?, gate = NULL WHERE id = ? AND attempt = ? AND gate = 1";

pub(super) const INTERRUPT: &str = "INSERT INTO {claims} (id, scope, attempt, created_at, expires_at) VALUES (?, ?, ?, {now}, 0) ON CONFLICT DO NOTHING";

/// Written as expired, so that an index finds it: operators must not have to read all outcomes that are kept.
pub(super) const INTERRUPTED: &str = "SELECT scope, id, created_at / 1000 FROM {claims} \
     WHERE outcome IS NULL AND expires_at <= {now} ORDER BY created_at LIMIT ?";

pub(super) const RELEASE: &str = "DELETE FROM {claims} WHERE id = ? AND outcome IS NULL";

pub(super) const PURGE: &str = "DELETE FROM {claims} WHERE id IN (SELECT id FROM {claims} \
     WHERE expires_at <= {now} AND outcome IS NOT NULL ORDER BY expires_at LIMIT ?)";

/// SQLITE_CONSTRAINT_PRIMARYKEY and SQLITE_CONSTRAINT_UNIQUE: the row is there.
const DUPLICATE: [i32; 2] = [1555, 2067];

pub(super) async fn holder(
    conn: &mut SqliteConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    let row = sqlx::query(sql.holder.sql())
        .bind(hash.0.to_vec())
        .fetch_optional(conn)
        .await?;
    row.map(|row| holder_of(&row)).transpose()
}

/// Answers whether the key is ours. It waits for the write lock as long as the connection's busy timeout says.
pub(super) async fn begin(
    conn: &mut SqliteConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<bool> {
    match begin_with(conn, claim_message(sql, claim)).await {
        Ok(()) => refuse_commits(conn).await.map(|()| true),
        Err(error) if code(&error).is_some_and(|code| DUPLICATE.contains(&code)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn claim_message(sql: &Sql, claim: &NewClaim<'_>) -> String {
    let table = &sql.claims;
    let (id, attempt) = (Hex(&claim.hash.0), Hex(claim.attempt.bytes()));
    let takeover = if claim.takeover {
        format!(
            "DELETE FROM {table} WHERE id = x'{id}' AND expires_at <= {NOW} AND outcome IS NOT NULL; "
        )
    } else {
        String::new()
    };
    let fingerprint = claim.fingerprint.map_or_else(
        || "NULL".to_owned(),
        |fingerprint| format!("x'{}'", Hex(&fingerprint.0)),
    );
    format!(
        "{BEGIN}; {takeover}INSERT INTO {table} (id, scope, attempt, fingerprint, gate, created_at, expires_at) \
         VALUES (x'{id}', '{scope}', x'{attempt}', {fingerprint}, (SELECT foreign_keys FROM pragma_foreign_keys), {NOW}, {NOW} + {retention}); \
         {WITNESS}",
        scope = claim.scope,
        retention = claim.retention.as_millis(),
    )
}

pub(super) async fn end_held(
    conn: &mut SqliteConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<Option<Holder>> {
    raw_sql("ROLLBACK").execute(&mut *conn).await?;
    holder(conn, sql, hash).await
}

/// Witness, fence and events, then COMMIT. Nothing crosses a network, so everything is bound, and the text of a statement
/// never holds a payload.
pub(super) async fn finish(
    conn: &mut SqliteConnection,
    sql: &Sql,
    end: &Completion<'_>,
) -> Result<(), Unfinished> {
    if end.refused {
        raw_sql("ROLLBACK TO effectively")
            .execute(&mut *conn)
            .await
            .map_err(without_witness)?;
    }
    raw_sql("RELEASE effectively")
        .execute(&mut *conn)
        .await
        .map_err(without_witness)?;
    if let Some((hash, outcome)) = end.claim {
        let query = sqlx::query(sql.complete.sql())
            .bind(outcome.to_vec())
            .bind(hash.0.to_vec())
            .bind(end.attempt.bytes().to_vec());
        let done = query.execute(&mut *conn).await;
        if done.map_err(Unfinished::NotCommitted)?.rows_affected() != 1 {
            return Err(Unfinished::Lost);
        }
    }
    let staged = outbox::stage(conn, sql, end).await;
    staged.map_err(Unfinished::NotCommitted)?;
    crate::fault::point("before_commit")
        .await
        .map_err(Unfinished::NotCommitted)?;
    allow_commits(conn)
        .await
        .map_err(Unfinished::NotCommitted)?;
    <Sqlite as Database>::TransactionManager::commit(conn)
        .await
        .map_err(while_committing)
}

/// Asked of the statements that name the savepoint, and of no other: what a trigger of the application raises is its own.
fn without_witness(error: sqlx::Error) -> Unfinished {
    let lost = error
        .as_database_error()
        .is_some_and(|refused| refused.message().contains("no such savepoint"));
    if lost {
        Unfinished::Lost
    } else {
        Unfinished::NotCommitted(error)
    }
}

/// The worker is a thread of this process: it answers for every COMMIT unless it died.
fn while_committing(error: sqlx::Error) -> Unfinished {
    match Sqlite::fault(&error) {
        Fault::Disconnected => Unfinished::Unknown(error),
        _ => Unfinished::NotCommitted(error),
    }
}

/// A row without outcome and gate is an interrupted key. Never over a row that is there: that one is another call's. It stands
/// where the index of ages begins, whatever the clock does later.
pub(super) async fn interrupt(
    conn: &mut SqliteConnection,
    sql: &Sql,
    claim: &NewClaim<'_>,
) -> sqlx::Result<()> {
    let query = sqlx::query(sql.interrupt.sql())
        .bind(claim.hash.0.to_vec())
        .bind(claim.scope);
    query
        .bind(claim.attempt.bytes().to_vec())
        .execute(conn)
        .await
        .map(drop)
}

pub(super) async fn interrupted(
    conn: &mut SqliteConnection,
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
    conn: &mut SqliteConnection,
    sql: &Sql,
    hash: KeyHash,
) -> sqlx::Result<bool> {
    let done = sqlx::query(sql.release.sql())
        .bind(hash.0.to_vec())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn purge(conn: &mut SqliteConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    Ok(sqlx::query(sql.purge.sql())
        .bind(limit)
        .execute(conn)
        .await?
        .rows_affected())
}

fn holder_of(row: &SqliteRow) -> sqlx::Result<Holder> {
    Ok(Holder {
        attempt: attempt_of(row.try_get(0)?)?,
        fingerprint: fingerprint_of(row.try_get(1)?),
        outcome: row.try_get(2)?,
        expired: row.try_get::<i64, _>(3)? != 0,
    })
}
