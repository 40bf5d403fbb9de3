//! Where the tables are, and their migrations.

use sqlx::{Sqlite, SqliteConnection, migrate::MigrateError, sqlite::SqliteConnectOptions};

use crate::store::{FoundSchema, Limits, Names, SchemaVerbs, Spelling};

impl SchemaVerbs for Sqlite {
    const SPELLING: Spelling = Spelling::Sqlite;

    /// The file of the pool, whatever else is attached. A temporary table would shadow a name without a schema.
    async fn schema(
        _: &mut SqliteConnection,
        _: &SqliteConnectOptions,
        _: &str,
    ) -> sqlx::Result<FoundSchema> {
        Ok(FoundSchema {
            schema: Some("main".to_owned()),
            changed: false,
        })
    }

    // SQLITE_MAX_LENGTH, of a row.
    async fn limits(_: &mut SqliteConnection) -> sqlx::Result<Limits> {
        Ok(Limits {
            message: 1_000_000_000,
            text: usize::MAX,
            all_at_once: false,
        })
    }

    async fn create_schema(_: &mut SqliteConnection, _: &Names) -> Result<(), MigrateError> {
        Ok(())
    }

    // SQLite has no such lock: a second process that meets the first one tries again.
    async fn lock_migrations(_: &mut SqliteConnection, _: &Names) -> Result<(), MigrateError> {
        Ok(())
    }

    async fn unlock_migrations(_: &mut SqliteConnection, _: &Names) -> Result<(), MigrateError> {
        Ok(())
    }
}
