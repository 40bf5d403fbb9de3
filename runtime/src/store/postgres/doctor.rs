//! What an operator asks.

use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row, raw_sql};

use super::Sql;
use crate::{
    model::KeyHash,
    store::doctor::{
        DoctorVerbs, KeyState, Leftovers, ServerState, leftovers_of, long_of, state_of,
    },
};

const VERSION: &str = "SELECT current_setting('server_version')";

const SETTINGS: &str = "SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes', \
    'default_transaction_isolation', 'max_connections', 'idle_in_transaction_session_timeout') \
    UNION ALL SELECT 'in_recovery', pg_is_in_recovery()::text ORDER BY 1";

/// Sessions of other users show no time to a user that is no `pg_read_all_stats`.
const LONG: &str = "SELECT pid::bigint, (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint, coalesce(state, '') \
    FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() \
    AND xact_start < clock_timestamp() - interval '60 seconds' ORDER BY xact_start LIMIT 100";

const OLDEST: &str =
    "SELECT max(age(backend_xmin))::bigint FROM pg_stat_activity WHERE pid <> pg_backend_pid()";

impl DoctorVerbs for Postgres {
    // Raw messages: they come through every pooler.
    async fn server(conn: &mut PgConnection) -> sqlx::Result<ServerState> {
        let version = raw_sql(VERSION).fetch_one(&mut *conn).await?.try_get(0)?;
        let settings = raw_sql(SETTINGS).fetch_all(&mut *conn).await?;
        let settings = settings
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<sqlx::Result<_>>()?;
        let long = raw_sql(LONG).fetch_all(&mut *conn).await?;
        let long = long
            .iter()
            .map(|row| Ok(long_of((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))))
            .collect::<sqlx::Result<_>>()?;
        let oldest: Option<i64> = raw_sql(OLDEST).fetch_one(conn).await?.try_get(0)?;
        Ok(ServerState {
            version,
            settings,
            long_transactions: Some(long),
            oldest_snapshot: oldest.map(i64::unsigned_abs),
            shares_sessions: false,
        })
    }

    async fn session(conn: &mut PgConnection) -> sqlx::Result<Option<i64>> {
        let session = raw_sql("SELECT pg_backend_pid()::bigint").fetch_one(conn);
        session.await?.try_get(0).map(Some)
    }

    async fn works(conn: &mut PgConnection, statement: String) -> bool {
        let statement = AssertSqlSafe(statement);
        raw_sql(statement).execute(conn).await.is_ok()
    }

    async fn leftovers(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Leftovers> {
        let statement = sql.fill(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {claims} WHERE outcome IS NOT NULL AND expires_at <= now() LIMIT 1000000) AS expired), \
             (SELECT count(*) FROM (SELECT 1 FROM {published} WHERE expires_at <= now() LIMIT 1000000) AS kept), \
             (SELECT count(*) FROM {leases} AS l WHERE l.holder IS NOT NULL \
              AND NOT EXISTS (SELECT 1 FROM {relays} AS r WHERE r.id = l.holder AND r.expires_at > now()))",
        );
        let row = sqlx::query_as(statement).persistent(false);
        row.fetch_one(conn).await.map(leftovers_of)
    }

    async fn key_state(
        conn: &mut PgConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<KeyState> {
        let statement = sql.fill(
            "SELECT scope, (extract(epoch FROM expires_at - now()) * 1000)::bigint, octet_length(outcome)::bigint, \
             extract(epoch FROM created_at)::bigint FROM {claims} WHERE id = $1",
        );
        let row = sqlx::query_as(statement).bind(hash.0.to_vec());
        row.fetch_optional(conn).await.map(state_of)
    }
}
