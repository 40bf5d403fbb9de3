//! Published events that are kept for a while.

use sqlx::PgConnection;

use super::Sql;

/// The function is of the migration: removing and keeping are one statement in it.
pub(super) fn settle(function: &str) -> String {
    format!("SELECT {function}($1, $2, $3, $4, $5)")
}

pub(super) async fn purge(conn: &mut PgConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
    let statement = sql.fill(
        "DELETE FROM {published} WHERE (id, event_id) IN (SELECT id, event_id FROM {published} \
         WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
    );
    // Planned anew each time: what suits a new table would read all of a large one.
    let query = sqlx::query(statement).persistent(false);
    let done = query.bind(limit).execute(conn).await?;
    Ok(done.rows_affected())
}
