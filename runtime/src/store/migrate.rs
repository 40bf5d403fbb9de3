//! The toolkit's own migrations, applied next to the application's and never touching them.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Pool, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{Dialect, Names};
use crate::error::{Error, ErrorKind};

/// The version of the tables that this library works with.
pub(crate) const SCHEMA_VERSION: i64 = 7;

/// How often a migration is tried while another process holds the database.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// Brings the tables to [`SCHEMA_VERSION`]. Safe to call from several processes at once, and twice.
pub(crate) async fn migrate<DB: Dialect>(pool: &Pool<DB>, names: &Names) -> Result<(), Error>
where
    sqlx::pool::PoolConnection<DB>: Send,
{
    let migrations = DB::migrations().iter().map(|(version, title, sql)| {
        let sql = AssertSqlSafe(names.rename(sql)).into_sql_str();
        Migration::new(*version, (*title).into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(names.full("migrations"));
    // A newer version of the library may have been here: its tables serve this one too, or `Ledger` says that they do not.
    migrator.set_ignore_missing(true);
    if let Some(schema) = names.schema() {
        migrator.create_schema(schema.to_owned());
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let mut conn = match pool.acquire().await {
            Ok(conn) => conn,
            // Opening a new file makes it a WAL file, for which SQLite waits for nobody, whatever its busy timeout.
            Err(source) if tries < TRIES && DB::busy(&source) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(source) => return Err(super::error::<DB>(source)),
        };
        // Closed when this future is dropped: it may hold a lock.
        conn.close_on_drop();
        DB::put_right(&mut conn).await.map_err(super::error::<DB>)?;
        DB::lock_migrations(&mut conn)
            .await
            .map_err(super::error::<DB>)?;
        match migrator.run_direct(None, &mut *conn, false).await {
            Ok(()) => {
                DB::unlock_migrations(&mut conn)
                    .await
                    .map_err(super::error::<DB>)?;
                return Ok(());
            }
            Err(source) => {
                drop(conn);
                if tries == TRIES || !may_be_a_race::<DB>(&source) {
                    return Err(Error::caused_by(ErrorKind::Migrate, source));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// SQLite has no lock for migrations. A second process then meets a busy database, the row that the first one has just written,
/// or its half-done work.
fn may_be_a_race<DB: Dialect>(error: &MigrateError) -> bool {
    let other_was_first = match error {
        MigrateError::Dirty(_) => true,
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => source
            .as_database_error()
            .is_some_and(|refused| refused.is_unique_violation()),
        _ => false,
    };
    other_was_first || DB::ONE_WRITER
}
