//! PostgreSQL 15 and newer.
//!
//! The claim is `INSERT … ON CONFLICT DO NOTHING` behind a try-lock, so it never waits: a key in flight elsewhere is known at
//! once. The unique key decides, the lock only saves the wait. The open claim points into an empty table through a deferred
//! foreign key, so a COMMIT that is not ours fails in the database. Claim and fence are procedures of the migration: the server
//! plans what is in them once per session, where a raw message is parsed and planned for every call.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Database, PgConnection, Postgres, Row, raw_sql};
use sqlx_core::transaction::TransactionManager;

use super::{
    Completion, Fault, Holder, InterruptedKey, Names, NewClaim, Statement, Unfinished, VERSION,
    Verbs, driver_fault,
};
use crate::model::{Attempt, Envelope, Isolation, KeyHash, Staged};

mod claims;
mod dead_letters;
mod doctor;
mod outbox;
mod published;
mod relay;
mod schema;

/// The statements with this ledger's names in them.
#[derive(Debug)]
pub struct Sql {
    names: Names,
    claims: String,
    outbox: String,
    claim: String,
    complete_or_raise: String,
    complete: Statement,
    complete_staging_one: Statement,
    complete_staging: Statement,
    stage_unkeyed: Statement,
    interrupted: Statement,
    release: Statement,
    purge: Statement,
    pending: Statement,
    read: Statement,
    remove: Statement,
    due: Statement,
    settle: Statement,
    settle_and_keep: Statement,
    version: Statement,
}

impl Sql {
    /// A statement of the relay with this ledger's names in it.
    fn fill(&self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.fill(template))
    }
}

impl Verbs for Postgres {
    type Sql = Sql;

    fn sql(names: &Names) -> Sql {
        let statement = |template: &str| {
            Statement::new(&template.replace("{envelope}", outbox::ENVELOPE), names)
        };
        Sql {
            names: names.clone(),
            claims: names.full("claims"),
            outbox: names.full("outbox"),
            claim: names.full("claim"),
            complete_or_raise: names.full("complete_or_raise"),
            complete: statement(claims::COMPLETE),
            complete_staging_one: statement(&claims::complete_staging(&outbox::stage_one(4))),
            complete_staging: statement(&claims::complete_staging(&outbox::stage(4))),
            stage_unkeyed: statement(&outbox::stage_unkeyed()),
            interrupted: statement(claims::INTERRUPTED),
            release: statement(claims::RELEASE),
            purge: statement(claims::PURGE),
            pending: statement(outbox::PENDING),
            read: statement(&outbox::first()),
            remove: statement(outbox::REMOVE),
            due: statement(&relay::due(&names.full("due"))),
            settle: statement(&relay::settle(&names.full("settle"))),
            settle_and_keep: statement(&published::settle(&names.full("settle_and_keep"))),
            version: statement(VERSION),
        }
    }

    fn migrations() -> &'static [(i64, &'static str, &'static str)] {
        &[
            (
                1,
                "claims and outbox",
                include_str!("migrations/0001_claims_and_outbox.sql"),
            ),
            (2, "relay", include_str!("migrations/0002_relay.sql")),
            (
                3,
                "published events",
                include_str!("migrations/0003_published.sql"),
            ),
        ]
    }

    fn fault(error: &sqlx::Error) -> Fault {
        if let Some(fault) = driver_fault(error) {
            return fault;
        }
        match code(error).as_deref() {
            Some("40001" | "40P01") => Fault::Conflict,
            Some("42P01" | "3F000") => Fault::TablesMissing,
            // The server is shutting down, was crashed by another session, or ended this one.
            Some("57P01" | "57P02" | "57P03") => Fault::Disconnected,
            Some(connection) if connection.starts_with("08") => Fault::Disconnected,
            // Too many connections, lock timeout; read-only: a failover is under way.
            Some("53300" | "55P03" | "25006") => Fault::Unavailable,
            _ => Fault::Other,
        }
    }

    async fn holder(
        conn: &mut PgConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::holder(conn, sql, hash).await
    }

    async fn begin(conn: &mut PgConnection, sql: &Sql, claim: &NewClaim<'_>) -> sqlx::Result<bool> {
        claims::begin(conn, sql, claim).await
    }

    async fn end_held(
        conn: &mut PgConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::end_held(conn, sql, hash).await
    }

    async fn await_holder(
        conn: &mut PgConnection,
        _: &Sql,
        hash: KeyHash,
        bound: Duration,
    ) -> sqlx::Result<()> {
        claims::await_holder(conn, hash, bound).await
    }

    async fn begin_unkeyed(
        conn: &mut PgConnection,
        attempt: Attempt,
        isolation: Isolation,
    ) -> sqlx::Result<()> {
        outbox::begin_unkeyed(conn, attempt, isolation).await
    }

    async fn complete(
        conn: &mut PgConnection,
        sql: &Sql,
        end: &Completion<'_>,
    ) -> Result<(), Unfinished> {
        claims::finish(conn, sql, end).await
    }

    async fn rollback(conn: &mut PgConnection) -> sqlx::Result<()> {
        if <Postgres as Database>::TransactionManager::get_transaction_depth(conn) == 1 {
            return <Postgres as Database>::TransactionManager::rollback(conn).await;
        }
        // Also ends a transaction that sqlx does not know of: BEGIN reached the server, its message failed later.
        raw_sql("ROLLBACK").execute(&mut *conn).await?;
        lower_depth(conn);
        Ok(())
    }

    async fn interrupt(
        conn: &mut PgConnection,
        sql: &Sql,
        claim: &NewClaim<'_>,
    ) -> sqlx::Result<()> {
        claims::interrupt(conn, sql, claim).await
    }

    async fn interrupted(
        conn: &mut PgConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<Vec<InterruptedKey>> {
        claims::interrupted(conn, sql, limit).await
    }

    async fn release(conn: &mut PgConnection, sql: &Sql, hash: KeyHash) -> sqlx::Result<bool> {
        claims::release(conn, sql, hash).await
    }

    async fn purge(conn: &mut PgConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
        claims::purge(conn, sql, limit).await
    }

    async fn pending(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<i64> {
        outbox::pending(conn, sql).await
    }

    async fn read(conn: &mut PgConnection, sql: &Sql, limit: i64) -> sqlx::Result<Vec<Envelope>> {
        outbox::read(conn, sql, limit).await
    }

    async fn remove(conn: &mut PgConnection, sql: &Sql, event: &Envelope) -> sqlx::Result<()> {
        outbox::remove(conn, sql, event).await
    }

    async fn version(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Option<i64>> {
        raw_sql(sql.version.sql()).fetch_one(conn).await?.try_get(0)
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|refused| refused.code())
        .map(Into::into)
}

fn begin_at(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED; ",
        Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ; ",
        Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE; ",
    }
}

/// The server notices when the client is gone: a closed connection frees the pool's slot at once, but its statement would run
/// on and hold its locks. The claim's procedure sets it, too.
const NOTICE_LOST_CLIENT: &str = "SET LOCAL client_connection_check_interval = 1000; ";

/// Begins with a whole message, so that sqlx counts depth 1 and a `begin` in the body is a savepoint.
async fn begin_with(conn: &mut PgConnection, message: String) -> sqlx::Result<()> {
    // Forgotten on purpose: the engine owns the connection and ends the transaction itself. The value holds only a borrow.
    conn.begin_with(AssertSqlSafe(message))
        .await
        .map(std::mem::forget)
}

/// COMMIT, so that sqlx counts down as well. The fence before it has made sure that it commits.
async fn commit(conn: &mut PgConnection) -> sqlx::Result<()> {
    if <Postgres as Database>::TransactionManager::get_transaction_depth(conn) == 1 {
        return <Postgres as Database>::TransactionManager::commit(conn).await;
    }
    // The body leaked a savepoint: sqlx would release it and commit nothing.
    raw_sql("COMMIT AND CHAIN").execute(&mut *conn).await?;
    lower_depth(conn);
    Ok(())
}

/// After our own COMMIT AND CHAIN: sqlx counts down and queues a ROLLBACK, which ends the empty chained transaction.
fn lower_depth(conn: &mut PgConnection) {
    <Postgres as Database>::TransactionManager::start_rollback(conn);
}
