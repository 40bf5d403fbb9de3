//! MySQL 8.0 and MariaDB 10.11, and newer.
//!
//! The claim is a plain `INSERT` on a hashed binary key behind a locking read that does not wait, so a key in flight
//! elsewhere is known at once. A savepoint is the witness that the transaction is still ours. While a call runs, its session
//! is read-only by default and `autocommit` is 0, and our own transaction says READ WRITE: after a ROLLBACK, a COMMIT or a
//! swallowed deadlock the server refuses every later write of the body (1792).

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
    interrupted: Statement,
    release: Statement,
    purge: Statement,
    pending: Statement,
    read: Statement,
    remove: Statement,
    version: Statement,
}

/// UTC in every session that was put right before, see [`put_right`], so that an index serves what is compared with it.
const NOW: &str = "UTC_TIMESTAMP(6)";

/// UTC in a session of which nothing is known: `SET timestamp` moves NOW and UTC_TIMESTAMP, but not SYSDATE. The difference is
/// between two times of the session's own zone, so the zone does not matter. No index serves it.
const CLOCK: &str =
    "(UTC_TIMESTAMP(6) + INTERVAL TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6)) MICROSECOND)";

impl Sql {
    /// A statement of the relay with this ledger's names in it.
    fn fill(&self, template: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.fill(&template.replace("{now}", NOW)))
    }
}

impl Verbs for MySql {
    /// The server refuses them: the session is read-only outside of our transaction.
    const WRITES_OUTLIVE_ROLLBACK: bool = false;

    type Sql = Sql;

    fn sql(names: &Names) -> Sql {
        let statement = |template: &str| {
            let template = template
                .replace("{envelope}", outbox::ENVELOPE)
                .replace("{clock}", CLOCK)
                .replace("{reads_committed}", READS_COMMITTED)
                .replace("{now}", NOW);
            Statement::new(&template, names)
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
        match number(error) {
            // Deadlock; MariaDB with `innodb_snapshot_isolation`, its default since 11.6: the record has changed since it was read.
            Some(1213 | 1020 | 3101) => Fault::Conflict,
            // On the database, a table, a column; a privilege of the server; on a routine.
            Some(1044 | 1142 | 1143 | 1227 | 1370) => Fault::Forbidden,
            Some(1146) => Fault::TablesMissing,
            // The server is shutting down, or ended this session or its statement.
            Some(1053 | 1317 | 1927 | 4031) => Fault::Disconnected,
            // A Galera node outside of its cluster; a server or a session that is read-only, as after a failover.
            Some(1047 | 1290 | 1792 | 1836) => Fault::WrongServer,
            // Tables that a borrower has locked, a transaction that one has left open: any other session will do.
            Some(1099 | 1100 | 1568) => Fault::WrongServer,
            // Too many connections, lock wait timeout, the time limit of a statement (MariaDB, MySQL).
            Some(1040 | 1205 | 1969 | 3024) => Fault::Unavailable,
            // `binlog_format = STATEMENT` and an isolation below repeatable read.
            Some(1665) => Fault::StatementBinlog,
            _ if is_connection_exception(error) => Fault::Disconnected,
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
        let message = format!("{ENTER}; {}; {WITNESS}", begin_at(isolation));
        begin_with(conn, message).await
    }

    async fn complete(
        conn: &mut MySqlConnection,
        sql: &Sql,
        end: &Completion<'_>,
    ) -> Result<(), Unfinished> {
        claims::finish(conn, sql, end).await
    }

    async fn rollback(conn: &mut MySqlConnection) -> sqlx::Result<()> {
        // Locks on tables outlive a transaction.
        raw_sql(AssertSqlSafe(format!(
            "{ROLLBACK}; UNLOCK TABLES; {RESTORE}"
        )))
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

// MySQL, and MariaDB before 11.1, have different names for two variables: each server reads its own out of a comment.

/// Keeps what a call changes, and ends what a session without `autocommit` may have begun. A COMMIT or ROLLBACK that begins the
/// next transaction (`completion_type`) would end none of ours.
const ENTER: &str = "ROLLBACK AND NO CHAIN NO RELEASE; SET @effectively_wait = @@SESSION.innodb_lock_wait_timeout, @effectively_autocommit = @@SESSION.autocommit, \
    @effectively_read_only = @@SESSION./*!80000 transaction_read_only *//*M! tx_read_only */, \
    SESSION timestamp = DEFAULT, SESSION autocommit = 1, SESSION completion_type = 0, SESSION /*!80000 transaction_read_only *//*M! tx_read_only */ = 0";

/// For as long as the call runs: nothing can be written but in a transaction that says READ WRITE. A claim that came between the
/// locking read and our INSERT is waited for one second.
const GUARD: &str = "SET SESSION innodb_lock_wait_timeout = 1, SESSION autocommit = 0, \
    SESSION /*!80000 transaction_read_only *//*M! tx_read_only */ = 1";

/// The body waits for locks as long as its session says.
const WAIT_AS_BEFORE: &str = "SET SESSION innodb_lock_wait_timeout = @effectively_wait";

/// Gives the session back as it was. A variable that was never set is a string to MariaDB, which a number is not set from.
const RESTORE: &str = "SET SESSION innodb_lock_wait_timeout = CAST(COALESCE(@effectively_wait, @@SESSION.innodb_lock_wait_timeout) AS SIGNED), \
    SESSION autocommit = CAST(COALESCE(@effectively_autocommit, @@SESSION.autocommit) AS SIGNED), SESSION completion_type = 0, \
    SESSION /*!80000 transaction_read_only *//*M! tx_read_only */ = CAST(COALESCE(@effectively_read_only, 0) AS SIGNED)";

/// What follows reads nothing that is not committed, whatever the session's isolation. For one statement, outside a transaction.
const READ_COMMITTED: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

const COMMIT: &str = "COMMIT AND NO CHAIN NO RELEASE";
const ROLLBACK: &str = "ROLLBACK AND NO CHAIN NO RELEASE";

/// Holds for a row that is read by a plain SELECT in any session but one that reads what is not committed.
const READS_COMMITTED: &str =
    "@@SESSION./*!80000 transaction_isolation *//*M! tx_isolation */ <> 'READ-UNCOMMITTED'";

/// Whether statements outside a call would do something else here than they should: write into a transaction that nobody
/// commits, be refused, read what is not committed, take text for something else, or go by a clock that somebody has set.
const CHANGED: &str = "SELECT @@SESSION.autocommit = 0 OR @@SESSION.completion_type <> 'NO_CHAIN' \
    OR @@SESSION./*!80000 transaction_read_only *//*M! tx_read_only */ = 1 \
    OR @@SESSION./*!80000 transaction_isolation *//*M! tx_isolation */ = 'READ-UNCOMMITTED' \
    OR @@SESSION.sql_safe_updates = 1 OR @@SESSION.character_set_client <> 'utf8mb4' \
    OR COALESCE(@@SESSION.character_set_results, 'utf8mb4') <> 'utf8mb4' OR ABS(TIMESTAMPDIFF(SECOND, NOW(), SYSDATE())) > 1";

const PUT_RIGHT: &str = "SET @effectively_safe_updates = @@SESSION.sql_safe_updates, \
    @effectively_isolation = @@SESSION./*!80000 transaction_isolation *//*M! tx_isolation */, \
    @effectively_client = @@SESSION.character_set_client, @effectively_results = @@SESSION.character_set_results, \
    @effectively_connection = @@SESSION.character_set_connection, @effectively_collation = @@SESSION.collation_connection, \
    SESSION character_set_client = 'utf8mb4', SESSION character_set_results = 'utf8mb4', SESSION character_set_connection = 'utf8mb4', \
    SESSION sql_safe_updates = 0, SESSION timestamp = DEFAULT, SESSION /*!80000 transaction_isolation *//*M! tx_isolation */ = \
    REPLACE(@@SESSION./*!80000 transaction_isolation *//*M! tx_isolation */, 'READ-UNCOMMITTED', 'REPEATABLE-READ')";

const PUT_BACK: &str = "SET SESSION sql_safe_updates = CAST(@effectively_safe_updates AS SIGNED), \
    SESSION character_set_client = @effectively_client, SESSION character_set_results = @effectively_results, \
    SESSION character_set_connection = @effectively_connection, SESSION collation_connection = @effectively_collation, \
    SESSION /*!80000 transaction_isolation *//*M! tx_isolation */ = @effectively_isolation";

/// Puts a session right for statements outside a call. Returns whether it was changed and must be put back.
async fn put_right(conn: &mut MySqlConnection) -> sqlx::Result<bool> {
    let changed: i64 = sqlx::query_scalar(CHANGED).fetch_one(&mut *conn).await?;
    if changed == 0 {
        return Ok(false);
    }
    let message = format!("{ENTER}; {PUT_RIGHT}");
    raw_sql(AssertSqlSafe(message)).execute(conn).await?;
    Ok(true)
}

/// The clock stays right: who froze it in a session of a shared pool has used it up.
async fn put_back(conn: &mut MySqlConnection) -> sqlx::Result<()> {
    let message = format!("{PUT_BACK}; {RESTORE}");
    raw_sql(AssertSqlSafe(message))
        .execute(conn)
        .await
        .map(drop)
}

/// Proves at the end that the transaction is still the one that began: COMMIT, ROLLBACK, DDL and a deadlock end it.
const WITNESS: &str = "SAVEPOINT effectively";

fn number(error: &sqlx::Error) -> Option<u16> {
    let refused = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(refused.number())
}

/// Class 08 of the SQL standard.
fn is_connection_exception(error: &sqlx::Error) -> bool {
    let refused = error.as_database_error();
    refused
        .and_then(|refused| refused.code())
        .is_some_and(|code| code.starts_with("08"))
}

/// The session is read-only before its transaction begins, so that whatever ends the transaction finds it so.
fn begin_at(isolation: Isolation) -> String {
    let level = match isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    format!("{GUARD}; SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION READ WRITE")
}

/// Begins with a whole message, so that sqlx counts depth 1 and a `begin` in the body is a savepoint.
async fn begin_with(conn: &mut MySqlConnection, message: String) -> sqlx::Result<()> {
    // Forgotten on purpose: the engine owns the connection and ends the transaction itself. The value holds only a borrow.
    conn.begin_with(AssertSqlSafe(message))
        .await
        .map(std::mem::forget)
}

/// After our own COMMIT or ROLLBACK: sqlx counts down and queues a ROLLBACK, which finds nothing to do. With another
/// `completion_type` it would begin a transaction, or end the session.
fn lower_depth(conn: &mut MySqlConnection) {
    <MySql as Database>::TransactionManager::start_rollback(conn);
}
