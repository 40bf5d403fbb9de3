//! The toolkit's own migrations, applied next to the application's and never touching them.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Pool, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
};

use super::{Dialect, Fault, GivenNames, Names, Verbs};
use crate::error::{Error, ErrorKind};

/// The version of the tables that this library works with.
pub(crate) const SCHEMA_VERSION: i64 = 7;

/// How often a migration is tried while another process holds the database.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// What only works when a migration was applied. One that is not among them can be applied again.
const TRACES: [(i64, &str); 7] = [
    (1, "SELECT id FROM effectively_claims WHERE 1 = 0"),
    (2, "SELECT id FROM effectively_relays WHERE 1 = 0"),
    (3, "SELECT id FROM effectively_published WHERE 1 = 0"),
    (4, "SELECT 1 FROM effectively_identity WHERE 1 = 0"),
    (5, "SELECT passable FROM effectively_outbox WHERE 1 = 0"),
    (6, "SELECT group_no FROM effectively_leases WHERE 1 = 0"),
    (7, "SELECT 'effectively_protect_session'::regproc"),
];

/// Brings the tables to [`SCHEMA_VERSION`]. Safe to call from several processes at once, and twice.
///
/// Not by sqlx's `Migrator`, only by its parts: that one compares checksums of the text, which has the names in it, and stops for
/// good at a migration that another process has not ended. The table that it keeps is the same.
pub(crate) async fn migrate<DB: Dialect>(pool: &Pool<DB>, given: &GivenNames) -> Result<(), Error>
where
    sqlx::pool::PoolConnection<DB>: Send,
{
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
        let names = given.resolve(pool, &mut conn).await?;
        let done = Box::pin(run::<DB>(&mut conn, &names, given.schema().is_some())).await;
        match done {
            Ok(()) => return Ok(()),
            Err(MigrateError::Execute(sqlx::Error::PoolTimedOut)) => {
                return Err(ErrorKind::Unavailable.into());
            }
            Err(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _))
                if DB::fault(&source) == Fault::Forbidden =>
            {
                return Err(super::error::<DB>(source));
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

async fn run<DB: Dialect>(
    conn: &mut DB::Connection,
    names: &Names,
    create_schema: bool,
) -> Result<(), MigrateError> {
    let table = names.full("migrations");
    // Without a lock, and without the right to create anything: this is what almost every start finds.
    match first_missing::<DB>(conn, &table).await {
        Ok(None) => return Ok(()),
        Err(MigrateError::Execute(source)) if DB::fault(&source) != Fault::TablesMissing => {
            return Err(source.into());
        }
        _ => {}
    }
    DB::lock_migrations(conn, names).await?;
    if create_schema {
        DB::create_schema(conn, names).await?;
    }
    conn.ensure_migrations_table(&table).await?;
    note_applied::<DB>(conn, names, &table).await?;
    while let Some((version, title, sql)) = first_missing::<DB>(conn, &table).await? {
        let migration = migration(names, version, title, sql);
        DB::apply(conn, &table, &migration).await?;
    }
    DB::unlock_migrations(conn, names).await
}

fn migration(names: &Names, version: i64, title: &'static str, sql: &'static str) -> Migration {
    let renamed = AssertSqlSafe(names.rename(sql)).into_sql_str();
    let simple = MigrationType::Simple;
    let mut migration = Migration::new(version, title.into(), simple, renamed, false);
    // Of the text in the file, whatever the names are.
    migration.checksum = checksum(sql).into();
    migration
}

/// Notes the migrations that were applied, when nothing says which: a test harness has emptied all tables, or another tool has
/// applied the files.
async fn note_applied<DB: Dialect>(
    conn: &mut DB::Connection,
    names: &Names,
    table: &str,
) -> Result<(), MigrateError> {
    if !conn.list_applied_migrations(table).await?.is_empty() {
        return Ok(());
    }
    for (version, title, sql) in DB::migrations() {
        let trace = TRACES.iter().find(|(traced, _)| traced == version);
        if let Some((_, trace)) = trace
            && DB::works(conn, names.rename(trace)).await
        {
            let applied = migration(names, *version, title, sql);
            conn.skip(table, &applied).await?;
        }
    }
    Ok(())
}

/// The first migration that is not applied, or not to its end: version, title and SQL. A newer version of the library may have been here, too: its tables
/// serve this one, or `Ledger` says that they do not.
async fn first_missing<DB: Verbs>(
    conn: &mut DB::Connection,
    table: &str,
) -> Result<Option<(i64, &'static str, &'static str)>, MigrateError> {
    let unfinished = conn.dirty_version(table).await?;
    let applied = conn.list_applied_migrations(table).await?;
    let is_missing = |(version, ..): &&(i64, _, _)| {
        let noted = applied.iter().any(|applied| applied.version == *version);
        !noted || unfinished == Some(*version)
    };
    Ok(DB::migrations().iter().find(is_missing).copied())
}

/// As sqlx computes it.
fn checksum(sql: &str) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha384::digest(sql).to_vec()
}

/// SQLite has no lock for migrations, and a MySQL cluster has none for all its nodes. A second process then meets a busy database, the
/// row that the first one has just written, or its half-done work.
fn may_be_a_race<DB: Dialect>(error: &MigrateError) -> bool {
    let meets_another = match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            DB::meets_another(source)
        }
        MigrateError::Dirty(_) => true,
        _ => false,
    };
    meets_another || DB::ONE_WRITER
}
