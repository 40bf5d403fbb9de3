//! SQLite 3.35 and newer, from a file: an in-memory database ends with its connection, and an unclean call closes one.
//!
//! One writer at a time, so a claim is decided as soon as the write lock is had, and nothing can be in flight elsewhere. The
//! open claim points into an empty table through a deferred foreign key, so a COMMIT that is not ours fails; a savepoint is
//! the witness that no ROLLBACK came between. While a call runs, the connection's commit hook refuses every COMMIT but ours:
//! after a ROLLBACK, what the body writes next would otherwise commit by itself, statement by statement.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Database, Sqlite, SqliteConnection, raw_sql};
use sqlx_core::transaction::TransactionManager;

use super::{
    Completion, Fault, Holder, InterruptedKey, Names, NewClaim, Statement, Unfinished, VERSION,
    Verbs, driver_fault,
};
use crate::model::{Attempt, Envelope, Isolation, KeyHash};

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
    holder: Statement,
    complete: Statement,
    interrupt: Statement,
    interrupted: Statement,
    release: Statement,
    purge: Statement,
    pending: Statement,
    read: Statement,
    remove: Statement,
    version: Statement,
}

impl Sql {
    /// A statement of the relay with this ledger's names in it.
    fn fill(&self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.fill(&template.replace("{now}", NOW)))
    }
}

impl Verbs for Sqlite {
    const ONE_WRITER: bool = true;

    type Sql = Sql;

    fn sql(names: &Names) -> Sql {
        let statement = |template: &str| {
            let template = template
                .replace("{envelope}", outbox::ENVELOPE)
                .replace("{now}", NOW);
            Statement::new(&template, names)
        };
        Sql {
            names: names.clone(),
            claims: names.full("claims"),
            outbox: names.full("outbox"),
            holder: statement(claims::HOLDER),
            complete: statement(claims::COMPLETE),
            interrupt: statement(claims::INTERRUPT),
            interrupted: statement(claims::INTERRUPTED),
            release: statement(claims::RELEASE),
            purge: statement(claims::PURGE),
            pending: statement(outbox::PENDING),
            read: statement(outbox::READ),
            remove: statement(outbox::REMOVE),
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
        let Some(refused) = error.as_database_error() else {
            return Fault::Other;
        };
        match code(error) {
            Some(BUSY_SNAPSHOT) => Fault::Conflict,
            // SQLITE_BUSY and SQLITE_LOCKED with their extended codes; SQLITE_CANTOPEN.
            Some(code) if matches!(code & 0xFF, 5 | 6 | 14) => Fault::Unavailable,
            // SQLITE_READONLY: `PRAGMA query_only` was left on, or the file cannot be written.
            Some(code) if code & 0xFF == READ_ONLY => Fault::WrongServer,
            // A borrower has left one open: any other connection will do.
            Some(1) if refused.message().contains("within a transaction") => Fault::WrongServer,
            Some(CHECK_FAILED) => Fault::ForeignKeysOff,
            Some(1) if refused.message().contains("no such table") => Fault::TablesMissing,
            _ => Fault::Other,
        }
    }

    fn busy(error: &sqlx::Error) -> bool {
        code(error).is_some_and(|code| code & 0xFF == 5)
    }

    async fn holder(
        conn: &mut SqliteConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::holder(conn, sql, hash).await
    }

    async fn begin(
        conn: &mut SqliteConnection,
        sql: &Sql,
        claim: &NewClaim<'_>,
    ) -> sqlx::Result<bool> {
        claims::begin(conn, sql, claim).await
    }

    async fn end_held(
        conn: &mut SqliteConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::end_held(conn, sql, hash).await
    }

    async fn await_holder(
        _: &mut SqliteConnection,
        _: &Sql,
        _: KeyHash,
        _: Duration,
    ) -> sqlx::Result<()> {
        // Whoever has the write lock sees every claim committed: there is nobody to wait for.
        Ok(())
    }

    async fn begin_unkeyed(
        conn: &mut SqliteConnection,
        _: &Sql,
        _: Attempt,
        _: Isolation,
    ) -> sqlx::Result<()> {
        begin_with(conn, format!("{BEGIN}; {WITNESS}")).await?;
        refuse_commits(conn).await
    }

    async fn complete(
        conn: &mut SqliteConnection,
        sql: &Sql,
        end: &Completion<'_>,
    ) -> Result<(), Unfinished> {
        claims::finish(conn, sql, end).await
    }

    async fn rollback(conn: &mut SqliteConnection) -> sqlx::Result<()> {
        let manager = <Sqlite as Database>::TransactionManager::rollback;
        match <Sqlite as Database>::TransactionManager::get_transaction_depth(conn) {
            // BEGIN went through and a later statement of its message failed: sqlx does not know of the transaction.
            0 => raw_sql("ROLLBACK").execute(&mut *conn).await.map(drop)?,
            _ => manager(conn).await?,
        }
        allow_commits(conn).await
    }

    async fn interrupt(
        conn: &mut SqliteConnection,
        sql: &Sql,
        claim: &NewClaim<'_>,
    ) -> sqlx::Result<()> {
        claims::interrupt(conn, sql, claim).await
    }

    async fn interrupted(
        conn: &mut SqliteConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<Vec<InterruptedKey>> {
        claims::interrupted(conn, sql, limit).await
    }

    async fn release(conn: &mut SqliteConnection, sql: &Sql, hash: KeyHash) -> sqlx::Result<bool> {
        claims::release(conn, sql, hash).await
    }

    async fn purge(conn: &mut SqliteConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
        claims::purge(conn, sql, limit).await
    }

    async fn pending(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<i64> {
        outbox::pending(conn, sql).await
    }

    async fn read(
        conn: &mut SqliteConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<Vec<Envelope>> {
        outbox::read(conn, sql, limit).await
    }

    async fn remove(conn: &mut SqliteConnection, sql: &Sql, event: &Envelope) -> sqlx::Result<()> {
        outbox::remove(conn, sql, event).await
    }

    async fn version(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Option<i64>> {
        sqlx::query_scalar(sql.version.sql()).fetch_one(conn).await
    }
}

/// The write lock at once: a deferred transaction that reads before it writes fails under a second writer, at once.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// Proves at the end that the transaction is still the one that began.
const WITNESS: &str = "SAVEPOINT effectively";
/// Milliseconds since 1970, in a form that SQLite 3.35 knows.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

const BUSY_SNAPSHOT: i32 = 517;
const READ_ONLY: i32 = 8;
const CHECK_FAILED: i32 = 275;

/// The extended result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// The database itself turns each COMMIT on this connection into a ROLLBACK, also that of a statement outside a transaction
/// (SQLITE_CONSTRAINT_COMMITHOOK). A connection has one such hook: one of the application's own is replaced.
async fn refuse_commits(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    conn.lock_handle().await?.set_commit_hook(|| false);
    Ok(())
}

async fn allow_commits(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    conn.lock_handle().await?.remove_commit_hook();
    Ok(())
}

/// Begins with a whole message, so that sqlx counts depth 1 and a `begin` in the body is a savepoint.
async fn begin_with(conn: &mut SqliteConnection, message: String) -> sqlx::Result<()> {
    // Forgotten on purpose: the engine owns the connection and ends the transaction itself. The value holds only a borrow.
    conn.begin_with(AssertSqlSafe(message))
        .await
        .map(std::mem::forget)
}
