//! What an operator asks.

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, raw_sql};

use super::{Sql, number};
use crate::{
    model::KeyHash,
    store::doctor::{
        DoctorVerbs, KeyState, Leftovers, LongTransaction, ServerState, leftovers_of, long_of,
        state_of,
    },
};

/// The isolation has another name in older versions of MariaDB.
const SETTINGS: &str = "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation', 'innodb_rollback_on_timeout', \
    'autocommit', 'completion_type', 'binlog_format', 'max_connections', 'innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'read_only')";

/// The engine keeps its times in the time zone of the system, whatever the session's is.
const LONG: &str = "SELECT CAST(trx_mysql_thread_id AS SIGNED), \
    TIMESTAMPDIFF(SECOND, trx_started, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM')) * 1000, LOWER(CAST(trx_state AS CHAR)) \
    FROM information_schema.innodb_trx WHERE trx_mysql_thread_id <> CONNECTION_ID() \
    AND trx_started < CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', 'SYSTEM') - INTERVAL 60 SECOND ORDER BY trx_started LIMIT 100";

/// MySQL cannot read `innodb_trx` while any session's statement holds bytes or characters that its old `utf8` lacks, such as the
/// parameters of a finish (seen on 9.7).
const CANNOT_CONVERT: u16 = 3854;

/// Whether the server keeps what [`LONG_INSTEAD`] reads. MySQL does by default.
const WATCHED: &str = "SELECT count(*) FROM performance_schema.setup_consumers \
    WHERE name = 'events_transactions_current' AND enabled = 'YES'";

const LONG_INSTEAD: &str = "SELECT CAST(t.processlist_id AS SIGNED), CAST(e.timer_wait DIV 1000000000 AS SIGNED), \
    IF(t.processlist_command = 'Sleep', 'idle', 'running') \
    FROM performance_schema.events_transactions_current AS e JOIN performance_schema.threads AS t ON t.thread_id = e.thread_id \
    WHERE e.state = 'ACTIVE' AND e.timer_wait > 60 * 1000000000000 AND t.processlist_id <> CONNECTION_ID() \
    ORDER BY e.timer_wait DESC LIMIT 100";

impl DoctorVerbs for MySql {
    async fn server(conn: &mut MySqlConnection) -> sqlx::Result<ServerState> {
        let version = sqlx::query_scalar("SELECT VERSION()").persistent(false);
        let version = version.fetch_one(&mut *conn).await?;
        let settings = sqlx::query_as(SETTINGS).persistent(false);
        let mut settings: Vec<(String, String)> = settings.fetch_all(&mut *conn).await?;
        let known = |settings: &[(String, String)]| {
            let mut names = settings.iter().map(|(name, _)| name.as_str());
            names.any(|name| name == "transaction_isolation")
        };
        if !known(&settings) {
            for (name, _) in &mut settings {
                if name == "tx_isolation" {
                    *name = "transaction_isolation".to_owned();
                }
            }
        }
        settings.retain(|(name, _)| name != "tx_isolation");
        // Needs a privilege that an application's user often has not: PROCESS, or SELECT on `performance_schema` for the second source.
        let long = match long(conn).await {
            Ok(long) => long,
            Err(sqlx::Error::Database(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(ServerState {
            version,
            settings,
            long_transactions: long,
            oldest_snapshot: None,
            shares_sessions: false,
        })
    }

    async fn session(conn: &mut MySqlConnection) -> sqlx::Result<Option<i64>> {
        let session = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)");
        session.persistent(false).fetch_one(conn).await.map(Some)
    }

    async fn works(conn: &mut MySqlConnection, statement: String) -> bool {
        let statement = AssertSqlSafe(statement);
        raw_sql(statement).execute(conn).await.is_ok()
    }

    async fn leftovers(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Leftovers> {
        let statement = sql.fill(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM {claims} WHERE outcome IS NOT NULL AND expires_at <= {now} LIMIT 1000000) AS expired), \
             (SELECT count(*) FROM (SELECT 1 FROM {published} WHERE expires_at <= {now} LIMIT 1000000) AS kept), \
             (SELECT count(*) FROM {leases} AS l WHERE l.holder IS NOT NULL \
              AND NOT EXISTS (SELECT 1 FROM {relays} AS r WHERE r.id = l.holder AND r.expires_at > {now}))",
        );
        let row = sqlx::query_as(statement).persistent(false);
        row.fetch_one(conn).await.map(leftovers_of)
    }

    async fn key_state(
        conn: &mut MySqlConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<KeyState> {
        let statement = sql.fill(
            "SELECT scope, TIMESTAMPDIFF(MICROSECOND, {now}, expires_at) DIV 1000, CAST(LENGTH(outcome) AS SIGNED), \
             TIMESTAMPDIFF(SECOND, '1970-01-01', created_at) FROM {claims} WHERE id = ?",
        );
        let row = sqlx::query_as(statement).bind(hash.0.to_vec());
        row.fetch_optional(conn).await.map(state_of)
    }
}

/// `None` if the server does not say.
async fn long(conn: &mut MySqlConnection) -> sqlx::Result<Option<Vec<LongTransaction>>> {
    let found: sqlx::Result<Vec<(i64, i64, String)>> = sqlx::query_as(LONG)
        .persistent(false)
        .fetch_all(&mut *conn)
        .await;
    let found = match found {
        Err(error) if number(&error) == Some(CANNOT_CONVERT) => {
            let watched = sqlx::query_scalar(WATCHED).persistent(false);
            let watched: i64 = watched.fetch_one(&mut *conn).await?;
            if watched == 0 {
                return Ok(None);
            }
            let instead = sqlx::query_as(LONG_INSTEAD).persistent(false);
            instead.fetch_all(conn).await?
        }
        found => found?,
    };
    Ok(Some(found.into_iter().map(long_of).collect()))
}
