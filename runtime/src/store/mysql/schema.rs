//! Where the tables are, and their migrations.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, MySql, MySqlConnection, Row,
    migrate::{Migrate, MigrateError, Migration},
    mysql::MySqlConnectOptions,
    raw_sql,
};

use super::number;
use crate::store::{Fault, FoundSchema, Limits, Names, SchemaVerbs, Spelling, Verbs};

/// One lock per database, waited for at most a minute.
const LOCK: &str = "SELECT GET_LOCK(LEFT(CONCAT('effectively migrates ', ?), 64), 60)";
const UNLOCK: &str = "DO RELEASE_LOCK(LEFT(CONCAT('effectively migrates ', ?), 64))";

/// What a borrower or the server's configuration may have set: `sql_safe_updates` refuses an UPDATE without a key.
const SESSION: &str = "SET SESSION autocommit = 1, completion_type = 0, sql_safe_updates = 0, timestamp = DEFAULT; SET SESSION TRANSACTION READ WRITE";

/// What the server says of a definition that is there already, or of one to be dropped that is gone: of a table, a column, an
/// index, a foreign key, a routine, a trigger.
const DONE_BEFORE: [u16; 9] = [1050, 1051, 1060, 1061, 1091, 1304, 1305, 1359, 1826];
/// A row is there already.
const DUPLICATE: u16 = 1062;

impl SchemaVerbs for MySql {
    const SPELLING: Spelling = Spelling::MySql;

    async fn schema(
        conn: &mut MySqlConnection,
        options: &MySqlConnectOptions,
        _: &str,
    ) -> sqlx::Result<FoundSchema> {
        let schema = raw_sql("SELECT DATABASE()").fetch_one(conn).await?;
        let schema: Option<String> = schema.try_get(0)?;
        Ok(FoundSchema {
            changed: schema.as_deref() != options.get_database(),
            schema,
        })
    }

    // A session cannot change it. The columns of the outbox are TEXT.
    async fn limits(conn: &mut MySqlConnection) -> sqlx::Result<Limits> {
        let packet = "SELECT CAST(@@SESSION.max_allowed_packet AS SIGNED)";
        let packet: i64 = raw_sql(packet).fetch_one(conn).await?.try_get(0)?;
        Ok(Limits {
            message: usize::try_from(packet).unwrap_or_default(),
            text: 65_535,
            all_at_once: false,
        })
    }

    async fn create_schema(conn: &mut MySqlConnection, names: &Names) -> Result<(), MigrateError> {
        let there =
            "SELECT EXISTS (SELECT 1 FROM information_schema.schemata WHERE schema_name = ?)";
        let there = sqlx::query_scalar(there)
            .bind(names.schema())
            .fetch_one(&mut *conn)
            .await?;
        // Even with IF NOT EXISTS the statement takes the right to create it.
        if there {
            return Ok(());
        }
        conn.create_schema_if_not_exists(&names.quoted(names.schema()))
            .await
    }

    // MariaDB refuses the time limit of sqlx's lock, so sqlx's lock does not hold there.
    async fn lock_migrations(
        conn: &mut MySqlConnection,
        names: &Names,
    ) -> Result<(), MigrateError> {
        // The connection is closed afterwards, so nothing has to be set back.
        raw_sql(SESSION).execute(&mut *conn).await?;
        let lock = sqlx::query_scalar(LOCK).bind(names.schema());
        match lock.fetch_one(conn).await? {
            Some(1_i64) => Ok(()),
            _ => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    async fn unlock_migrations(
        conn: &mut MySqlConnection,
        names: &Names,
    ) -> Result<(), MigrateError> {
        let unlock = sqlx::query(UNLOCK).bind(names.schema());
        Ok(unlock.execute(conn).await.map(drop)?)
    }

    fn meets_another(error: &sqlx::Error) -> bool {
        MySql::fault(error) == Fault::Conflict || number(error) == Some(DUPLICATE)
    }

    /// A statement that defines something commits by itself. So a migration is applied statement by statement, and its row counts
    /// those that are done (in `execution_time`, until `success`), in one transaction with the statement if it takes part in one.
    async fn apply(
        conn: &mut MySqlConnection,
        table: &str,
        migration: &Migration,
    ) -> Result<(), MigrateError> {
        let version = migration.version;
        let progress = begin(conn, table, migration).await?;
        let statements = statements(migration.sql.as_str());
        for (no, statement) in (0..)
            .zip(&statements)
            .skip_while(|(no, _)| *no < progress.done)
        {
            raw_sql("START TRANSACTION").execute(&mut *conn).await?;
            let statement = progress.repeatable(statement);
            if let Err(error) = raw_sql(AssertSqlSafe(statement)).execute(&mut *conn).await
                && !progress.was_done(no, &error)
            {
                let is_there = number(&error).is_some_and(|number| DONE_BEFORE.contains(&number));
                if is_there && is_done_by_another(conn, table, version, no).await? {
                    return Err(MigrateError::Dirty(version));
                }
                if !progress.resumed && no == 0 {
                    // Refused, not cut off: nothing of it is done, and the next try must not think so.
                    let forget = format!("DELETE FROM {table} WHERE version = {version}; COMMIT");
                    raw_sql(AssertSqlSafe(forget)).execute(&mut *conn).await?;
                }
                return Err(MigrateError::ExecuteMigration(error, version));
            }
            let note = format!(
                "UPDATE {table} SET execution_time = {} WHERE version = {version}; COMMIT",
                no + 1
            );
            raw_sql(AssertSqlSafe(note)).execute(&mut *conn).await?;
        }
        let success = format!("UPDATE {table} SET success = TRUE WHERE version = {version}");
        raw_sql(AssertSqlSafe(success)).execute(conn).await?;
        Ok(())
    }
}

/// Whether other servers take writes for the same tables. Empty where the server knows nothing of clusters.
async fn is_cluster(conn: &mut MySqlConnection) -> sqlx::Result<bool> {
    let size = raw_sql("SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'");
    let Some(size) = size.fetch_optional(conn).await? else {
        return Ok(false);
    };
    let size: String = size.try_get(1)?;
    Ok(size.parse().is_ok_and(|size: u32| size > 1))
}

/// Whether another node of a cluster is at the same migration, since the lock is local to a node: then it soon notes that the statement
/// is done. Else a table of the application is in the way.
async fn is_done_by_another(
    conn: &mut MySqlConnection,
    table: &str,
    version: i64,
    no: i64,
) -> sqlx::Result<bool> {
    raw_sql("ROLLBACK").execute(&mut *conn).await?;
    if !is_cluster(conn).await? {
        return Ok(false);
    }
    let done = format!(
        "SELECT COUNT(*) FROM {table} WHERE version = ? AND (success OR execution_time > ?)"
    );
    for _ in 0..LOOKS {
        let query = sqlx::query_scalar(AssertSqlSafe(done.clone())).bind(version);
        let done: i64 = query.bind(no).fetch_one(&mut *conn).await?;
        if done > 0 {
            return Ok(true);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(false)
}

/// How long a definition may take on another node: 10 seconds.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// How far an earlier try came.
struct Progress {
    done: i64,
    /// Whether there was one: then the next statement may be done, too, and only its note is missing.
    resumed: bool,
}

impl Progress {
    /// An earlier version of the library, which left the work to sqlx, noted only that a migration had begun. Any statement may be
    /// done then.
    fn is_unknown(&self) -> bool {
        self.done < 0
    }

    fn was_done(&self, no: i64, error: &sqlx::Error) -> bool {
        let may_be = self.is_unknown() || self.resumed && no == self.done;
        may_be
            && number(error).is_some_and(|number| {
                DONE_BEFORE.contains(&number) || self.is_unknown() && number == DUPLICATE
            })
    }

    /// Of all statements of that time only this one would do harm when it runs twice: it would undo itself.
    fn repeatable(&self, statement: &str) -> String {
        const MOVES_DELAYED: &str = "SET partition_no = -1 - partition_no WHERE ";
        if self.is_unknown() {
            statement.replace(
                MOVES_DELAYED,
                &format!("{MOVES_DELAYED}partition_no >= 0 AND "),
            )
        } else {
            statement.to_owned()
        }
    }
}

async fn begin(
    conn: &mut MySqlConnection,
    table: &str,
    migration: &Migration,
) -> Result<Progress, MigrateError> {
    let begun = format!("SELECT execution_time FROM {table} WHERE version = ?");
    let begun = sqlx::query_scalar(AssertSqlSafe(begun))
        .bind(migration.version)
        .fetch_optional(&mut *conn)
        .await?;
    if begun.is_none() {
        let begin = format!(
            "INSERT INTO {table} (version, description, success, checksum, execution_time) VALUES (?, ?, FALSE, ?, 0)"
        );
        sqlx::query(AssertSqlSafe(begin))
            .bind(migration.version)
            .bind(&*migration.description)
            .bind(&*migration.checksum)
            .execute(conn)
            .await?;
    }
    Ok(Progress {
        done: begun.unwrap_or(0),
        resumed: begun.is_some(),
    })
}

/// The statements of a migration, without comments. No string in it has a backslash.
fn statements(sql: &str) -> Vec<String> {
    let (mut statements, mut statement) = (Vec::new(), String::new());
    let (mut quote, mut rest) = (None, sql);
    while let Some(c) = rest.chars().next() {
        if quote.is_none() && rest.starts_with("-- ") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match quote {
            None if c == ';' => {
                statements.push(std::mem::take(&mut statement));
                continue;
            }
            None if matches!(c, '\'' | '"' | '`') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        statement.push(c);
    }
    statements.push(statement);
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Verbs;

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_quoted_or_in_a_comment() {
        let sql = "-- It's one; and\nCREATE TABLE `a;b` (c INT); -- d;\nINSERT INTO t VALUES (';', 'it''s', \"--  \");\n";
        let found = statements(sql);
        let found: Vec<_> = found.iter().map(|text| text.trim()).collect();
        assert_eq!(
            found,
            [
                "CREATE TABLE `a;b` (c INT)",
                "INSERT INTO t VALUES (';', 'it''s', \"--  \")"
            ]
        );
    }

    #[test]
    fn every_statement_of_a_migration_is_found() {
        for (version, _, sql) in MySql::migrations() {
            let found = statements(sql);
            // A version that changes another database has a comment only.
            let comments = sql.lines().all(|line| line.starts_with("--"));
            assert!(!found.is_empty() || comments, "{version}");
            for statement in found {
                let verb = statement.split_whitespace().next().unwrap_or_default();
                let known = ["CREATE", "ALTER", "DROP", "INSERT", "UPDATE", "DELETE"];
                assert!(known.contains(&verb), "{version}: {statement}");
            }
        }
    }
}
