//! PostgreSQL 15 and newer.
//!
//! The claim is `INSERT … ON CONFLICT DO NOTHING` behind a try-lock, so it never waits: a key in flight elsewhere is known at
//! once. The unique key decides, the lock only saves the wait. The open claim points into an empty table through a deferred
//! foreign key, so a COMMIT that is not ours fails in the database. While a call runs, its session refuses writes outside of the
//! call's transaction. Claim and fence are functions of the migration: the server plans what is in them once per session, where a raw
//! message is parsed and planned for every call. Bytes travel as hex, which no setting of the server reads or writes in another way.

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
mod identity;
mod leases;
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
    protect: String,
    claim: String,
    complete_or_raise: String,
    check_attempt: String,
    /// What the table of the claims adds to the number of a key's lock: advisory locks are shared by the whole database.
    lock: i64,
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
    due_by_topic: Statement,
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
            protect: format!("BEGIN; CALL {}(); COMMIT; ", names.full("protect_session")),
            claim: names.full("claim_key"),
            complete_or_raise: names.full("complete_key"),
            check_attempt: names.full("check_attempt"),
            lock: claims::lock_of(&names.full("claims")),
            complete: statement(&claims::complete()),
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
            due_by_topic: statement(&relay::due(&names.full("due_by_topic"))),
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
            (4, "identity", include_str!("migrations/0004_identity.sql")),
            (5, "parked keys", include_str!("migrations/0005_parked.sql")),
            (
                6,
                "groups of relays",
                include_str!("migrations/0006_groups.sql"),
            ),
            (7, "calls", include_str!("migrations/0007_calls.sql")),
        ]
    }

    fn fault(error: &sqlx::Error) -> Fault {
        if let Some(fault) = driver_fault(error) {
            return fault;
        }
        match code(error).as_deref() {
            Some("40001" | "40P01") => Fault::Conflict,
            Some("42501") => Fault::Forbidden,
            Some("42P01" | "3F000") => Fault::TablesMissing,
            // The server is shutting down, was crashed by another session, or ended this one: an operator, or a limit on
            // transactions and sessions that are idle or long.
            Some("57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04") => {
                Fault::Disconnected
            }
            Some(connection) if connection.starts_with("08") => Fault::Disconnected,
            Some(READ_ONLY) => Fault::WrongServer,
            // A borrower has left a transaction open, or one that has failed: any other connection will do.
            Some("25001" | "25P02") => Fault::WrongServer,
            // Too many connections, lock timeout, a statement that took longer than the session allows.
            Some("53300" | "55P03" | "57014") => Fault::Unavailable,
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
        sql: &Sql,
        hash: KeyHash,
        bound: Duration,
    ) -> sqlx::Result<()> {
        claims::await_holder(conn, sql, hash, bound).await
    }

    async fn begin_unkeyed(
        conn: &mut PgConnection,
        sql: &Sql,
        attempt: Attempt,
        isolation: Isolation,
    ) -> sqlx::Result<()> {
        outbox::begin_unkeyed(conn, sql, attempt, isolation).await
    }

    async fn complete(
        conn: &mut PgConnection,
        sql: &Sql,
        end: &Completion<'_>,
    ) -> Result<(), Unfinished> {
        claims::finish(conn, sql, end).await
    }

    async fn rollback(conn: &mut PgConnection) -> sqlx::Result<()> {
        // Also ends a transaction that sqlx does not know of: BEGIN reached the server, its message failed later.
        if <Postgres as Database>::TransactionManager::get_transaction_depth(conn) == 0 {
            let message = format!("ROLLBACK; {TAKE_WRITES}");
            return raw_sql(AssertSqlSafe(message))
                .execute(conn)
                .await
                .map(drop);
        }
        // The setting needs the COMMIT, or the ROLLBACK that sqlx queues would undo it.
        let message = format!("ROLLBACK AND CHAIN; {TAKE_WRITES}; COMMIT AND CHAIN");
        match raw_sql(AssertSqlSafe(message)).execute(&mut *conn).await {
            // The transaction has ended: by the body, or by a COMMIT that the server refused.
            Err(error) if code(&error).as_deref() == Some("25P01") => {
                let message = format!("BEGIN; {TAKE_WRITES}; COMMIT AND CHAIN");
                raw_sql(AssertSqlSafe(message)).execute(&mut *conn).await?;
            }
            ended => {
                ended?;
            }
        }
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
        Isolation::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ",
        Isolation::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; ",
        Isolation::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; ",
    }
}

/// The server notices when the client is gone: a closed connection frees the pool's slot at once, but its statement would run
/// on and hold its locks. The claim's function sets it, too. A SELECT, since statistics of statements leave out its constants only.
const NOTICE_LOST_CLIENT: &str = "set_config('client_connection_check_interval', '1000', true)";

/// Ends what `protect_session` began, where no fence does. Never `off`: a server that is being taken out of service may have been
/// told to be read-only meanwhile, and the session has to follow it.
const TAKE_WRITES: &str = "RESET default_transaction_read_only";

/// SQLSTATE of a write in a read-only transaction.
const READ_ONLY: &str = "25006";

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

/// After our own COMMIT AND CHAIN, or ROLLBACK and BEGIN: sqlx counts down and queues a ROLLBACK, which ends the empty transaction.
fn lower_depth(conn: &mut PgConnection) {
    <Postgres as Database>::TransactionManager::start_rollback(conn);
}
