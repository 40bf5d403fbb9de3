//! MySQL 8.0 and MariaDB 10.11, and newer.
//!
//! The claim is a plain `INSERT` on a hashed binary key behind a locking read that does not wait, so a key in flight
//! elsewhere is known at once. A savepoint is the witness that the transaction is still ours. `autocommit = 0` while a call
//! runs: after a deadlock that the body swallowed, the server would otherwise commit every later statement by itself.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection, Database, MySql, MySqlConnection, mysql::MySqlDatabaseError, raw_sql,
};
use sqlx_core::transaction::TransactionManager;

use super::{
    Completion, Fault, Holder, InterruptedKey, Names, NewClaim, Statement, Unfinished, VERSION,
    Verbs, driver_fault,
};
use crate::model::{Attempt, Envelope, Isolation, KeyHash};

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
    holder: Statement,
    complete: Statement,
    interrupted: Statement,
    release: Statement,
    purge: Statement,
    pending: Statement,
    read: Statement,
    remove: Statement,
    version: Statement,
}

/// The same in every session, whatever its time zone.
const NOW: &str = "UTC_TIMESTAMP(6)";

impl Sql {
    /// A statement of the relay with this ledger's names in it.
    fn fill(&self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.fill(&template.replace("{now}", NOW)))
    }
}

impl Verbs for MySql {
    /// With `autocommit = 0` they stay in a transaction that our ROLLBACK ends.
    const WRITES_OUTLIVE_ROLLBACK: bool = false;

    type Sql = Sql;

    fn sql(names: &Names) -> Sql {
        let statement = |template: &str| {
            Statement::new(&template.replace("{envelope}", outbox::ENVELOPE), names)
        };
        Sql {
            names: names.clone(),
            claims: names.full("claims"),
            outbox: names.full("outbox"),
            holder: statement(claims::HOLDER),
            complete: statement(claims::COMPLETE),
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
            (5, "parked keys", include_str!("migrations/0005_parked.sql")),
            (7, "calls", include_str!("migrations/0007_calls.sql")),
        ]
    }

    fn fault(error: &sqlx::Error) -> Fault {
        if let Some(fault) = driver_fault(error) {
            return fault;
        }
        match number(error) {
            // Deadlock; MariaDB with `innodb_snapshot_isolation`, its default since 11.6: the record has changed since it was read.
            Some(1213 | 1020) => Fault::Conflict,
            Some(1146) => Fault::TablesMissing,
            // The server is shutting down, or ended this session or its statement.
            Some(1053 | 1317 | 1927) => Fault::Disconnected,
            // Too many connections, lock wait timeout; read-only: a failover is under way.
            Some(1040 | 1205 | 1290 | 1836) => Fault::Unavailable,
            _ => Fault::Other,
        }
    }
    async fn holder(
        conn: &mut MySqlConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::holder(conn, sql, hash).await
    }

    async fn begin(
        conn: &mut MySqlConnection,
        sql: &Sql,
        claim: &NewClaim<'_>,
    ) -> sqlx::Result<bool> {
        claims::begin(conn, sql, claim).await
    }

    async fn end_held(
        conn: &mut MySqlConnection,
        sql: &Sql,
        hash: KeyHash,
    ) -> sqlx::Result<Option<Holder>> {
        claims::end_held(conn, sql, hash).await
    }

    async fn await_holder(
        conn: &mut MySqlConnection,
        sql: &Sql,
        hash: KeyHash,
        bound: Duration,
    ) -> sqlx::Result<()> {
        claims::await_holder(conn, sql, hash, bound).await
    }

    async fn begin_unkeyed(
        conn: &mut MySqlConnection,
        _: &Sql,
        _: Attempt,
        isolation: Isolation,
    ) -> sqlx::Result<()> {
        begin_with(conn, format!("{}; {WITNESS}", begin_at(isolation))).await
    }

    async fn complete(
        conn: &mut MySqlConnection,
        sql: &Sql,
        end: &Completion<'_>,
    ) -> Result<(), Unfinished> {
        claims::finish(conn, sql, end).await
    }

    async fn rollback(conn: &mut MySqlConnection) -> sqlx::Result<()> {
        raw_sql(AssertSqlSafe(format!("ROLLBACK; {RESTORE}")))
            .execute(&mut *conn)
            .await?;
        lower_depth(conn);
        Ok(())
    }

    async fn interrupt(
        conn: &mut MySqlConnection,
        sql: &Sql,
        claim: &NewClaim<'_>,
    ) -> sqlx::Result<()> {
        claims::interrupt(conn, sql, claim).await
    }

    async fn interrupted(
        conn: &mut MySqlConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<Vec<InterruptedKey>> {
        claims::interrupted(conn, sql, limit).await
    }

    async fn release(conn: &mut MySqlConnection, sql: &Sql, hash: KeyHash) -> sqlx::Result<bool> {
        claims::release(conn, sql, hash).await
    }

    async fn purge(conn: &mut MySqlConnection, sql: &Sql, limit: i64) -> sqlx::Result<u64> {
        claims::purge(conn, sql, limit).await
    }

    async fn pending(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<i64> {
        outbox::pending(conn, sql).await
    }

    async fn read(
        conn: &mut MySqlConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<Vec<Envelope>> {
        outbox::read(conn, sql, limit).await
    }

    async fn remove(conn: &mut MySqlConnection, sql: &Sql, event: &Envelope) -> sqlx::Result<()> {
        outbox::remove(conn, sql, event).await
    }

    async fn version(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Option<i64>> {
        sqlx::query_scalar(sql.version.sql()).fetch_one(conn).await
    }
}

/// Proves at the end that the transaction is still the one that began: COMMIT, ROLLBACK, DDL and a deadlock end it.
const WITNESS: &str = "SAVEPOINT effectively";

/// Gives the session back as it was. A variable that was never set is a string to MariaDB, which a number is not set from.
const RESTORE: &str = "SET autocommit = 1, SESSION innodb_lock_wait_timeout = CAST(COALESCE(@effectively_wait, @@SESSION.innodb_lock_wait_timeout) AS SIGNED)";

fn number(error: &sqlx::Error) -> Option<u16> {
    let refused = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(refused.number())
}

fn begin_at(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadCommitted => {
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET autocommit = 0; START TRANSACTION"
        }
        Isolation::RepeatableRead => {
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET autocommit = 0; START TRANSACTION"
        }
        Isolation::Serializable => {
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET autocommit = 0; START TRANSACTION"
        }
    }
}

/// Begins with a whole message, so that sqlx counts depth 1 and a `begin` in the body is a savepoint.
async fn begin_with(conn: &mut MySqlConnection, message: String) -> sqlx::Result<()> {
    // Forgotten on purpose: the engine owns the connection and ends the transaction itself. The value holds only a borrow.
    conn.begin_with(AssertSqlSafe(message))
        .await
        .map(std::mem::forget)
}

/// After our own COMMIT or ROLLBACK: sqlx counts down and queues a ROLLBACK, which finds nothing to do.
fn lower_depth(conn: &mut MySqlConnection) {
    <MySql as Database>::TransactionManager::start_rollback(conn);
}
