//! What an operator asks.

use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, raw_sql};

use super::Sql;
use crate::{
    model::KeyHash,
    store::doctor::{DoctorVerbs, KeyState, Leftovers, ServerState, leftovers_of, state_of},
};

/// All but the mode of the journal are settings of the connection, not of the file.
const SETTINGS: &str = "SELECT 'foreign_keys', CAST(foreign_keys AS TEXT) FROM pragma_foreign_keys \
    UNION ALL SELECT 'journal_mode', journal_mode FROM pragma_journal_mode \
    UNION ALL SELECT 'synchronous', CAST(synchronous AS TEXT) FROM pragma_synchronous \
    UNION ALL SELECT 'busy_timeout', CAST(timeout AS TEXT) FROM pragma_busy_timeout";

impl DoctorVerbs for Sqlite {
    async fn server(conn: &mut SqliteConnection) -> sqlx::Result<ServerState> {
        let version = sqlx::query_scalar("SELECT sqlite_version()");
        let version = version.fetch_one(&mut *conn).await?;
        let settings = sqlx::query_as(SETTINGS).fetch_all(conn).await?;
        Ok(ServerState {
            version,
            settings,
            long_transactions: None,
            oldest_snapshot: None,
            shares_sessions: false,
        })
    }

    async fn session(_: &mut SqliteConnection) -> sqlx::Result<Option<i64>> {
        Ok(None)
    }

    async fn works(conn: &mut SqliteConnection, statement: String) -> bool {
        let statement = AssertSqlSafe(statement);
        raw_sql(statement).execute(conn).await.is_ok()
    }

    async fn leftovers(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Leftovers> {
        let statement = sql.fill(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {claims} WHERE outcome IS NOT NULL AND expires_at <= {now} LIMIT 1000000)), \
             (SELECT count(*) FROM (SELECT 1 FROM {published} WHERE expires_at <= {now} LIMIT 1000000) AS kept), \
             (SELECT count(*) FROM {leases} AS l WHERE l.holder IS NOT NULL \
              AND NOT EXISTS (SELECT 1 FROM {relays} AS r WHERE r.id = l.holder AND r.expires_at > {now}))",
        );
        let row = sqlx::query_as(statement).persistent(false);
        row.fetch_one(conn).await.map(leftovers_of)
    }

    async fn key_state(
        conn: &mut SqliteConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<KeyState> {
        let statement = sql.fill(
            "SELECT scope, expires_at - {now}, length(outcome), created_at / 1000 FROM {claims} WHERE id = ?",
        );
        let row = sqlx::query_as(statement).bind(hash.0.to_vec());
        row.fetch_optional(conn).await.map(state_of)
    }
}
